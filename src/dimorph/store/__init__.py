"""Artifacts: kept, found, and known to be safe to load."""
