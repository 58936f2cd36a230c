"""Ahead of time: find declared kernels, build sets of specializations into a directory, verify what is there."""

from dimorph.aot.builder import Report, build
from dimorph.aot.discover import load_kernels
from dimorph.aot.verifier import Coverage, verify

__all__ = ["Coverage", "Report", "build", "load_kernels", "verify"]
