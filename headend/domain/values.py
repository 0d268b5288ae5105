"""`dataclass` for the values that are made for every reading: see `protocols.values`."""

from protocols.values import dataclass

__all__ = ["dataclass"]
