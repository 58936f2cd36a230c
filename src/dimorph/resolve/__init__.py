"""From a unit to its artifact: searched, or built."""
