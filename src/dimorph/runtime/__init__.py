"""From an artifact to a call."""
