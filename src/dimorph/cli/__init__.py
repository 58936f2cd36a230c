"""The command line `dimorph`."""
