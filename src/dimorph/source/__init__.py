"""From a declaration to C++ text: the config header, and the scan for the files that a source includes."""
