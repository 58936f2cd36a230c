"""Fixtures, kernels and checks for several tests, imported as `support.x` because `tests` is on the path."""
