"""From texts to units with keys: no compiler, no clock."""
