"""The proof that a damaged reply never becomes a value."""
