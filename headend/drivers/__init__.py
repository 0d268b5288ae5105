"""Meter sessions: points in, values or errors out. What is due is decided elsewhere."""

from headend.drivers.dlt645 import Dlt645Session
from headend.drivers.result import PointResult, error_code, reading_json

__all__ = ["Dlt645Session", "PointResult", "error_code", "reading_json"]
