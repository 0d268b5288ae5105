"""Makes `tests.support` importable: the folder of this package is put on the path."""
