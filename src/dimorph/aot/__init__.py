"""Ahead of time: find declared kernels, build sets of specializations into a directory, verify what is there."""

from dimorph.aot.builder import Coverage, Report, build, verify
from dimorph.aot.discover import load_kernels

__all__ = ["Coverage", "Report", "build", "load_kernels", "verify"]
