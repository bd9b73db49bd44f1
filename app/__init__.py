"""User interfaces: the command line `irra`, the search page, and the commands behind `make`."""
