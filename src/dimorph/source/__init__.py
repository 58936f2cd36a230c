"""From a declaration to texts: the config header, and the files that a source includes."""
