"""Store artifacts, find them by their keys, and check that they are safe to load."""
