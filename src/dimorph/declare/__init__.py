"""Declarations of kernels, axes, variants and sets of values: immutable, printable, made without reading a file."""
