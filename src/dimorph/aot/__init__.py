"""Ahead of time: find declared kernels, build instantiation sets into a directory, verify such a directory."""

from dimorph.aot.builder import Report, build
from dimorph.aot.cover import Proof, cover
from dimorph.aot.discover import load_kernels
from dimorph.aot.verifier import Coverage, verify

__all__ = ["Coverage", "Proof", "Report", "build", "cover", "load_kernels", "verify"]
