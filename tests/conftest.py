"""Makes `tests.support` importable from every test (the folder of this package is put on the path)."""
