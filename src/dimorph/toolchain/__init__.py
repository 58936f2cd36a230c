"""Compilers: found, identified and run; command in, objects out."""
