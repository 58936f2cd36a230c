"""The way from a unit to its artifact: search the stores, else build it."""
