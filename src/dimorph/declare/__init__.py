"""Declarations: kernels, axes, variants and sets of values; frozen, printable, no file read."""
