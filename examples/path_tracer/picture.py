"""Make the picture of the README."""
