"""Fixtures, kernels and checks that several tests use; `tests` is on the path, so they are imported as `support.x`."""
