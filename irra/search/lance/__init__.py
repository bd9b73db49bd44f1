"""A gallery in a LanceDB database: larger than a folder should be, written and read by several machines."""
