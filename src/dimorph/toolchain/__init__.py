"""Find, identify and run compilers: a command line in, object files out."""
