"""Meter sessions: points in, values or errors out. What is due is decided elsewhere."""

from headend.drivers.device import bus_device
from headend.drivers.dlt645 import Dlt645Session
from headend.drivers.modbus import ModbusSession, transaction_ids
from headend.drivers.result import Doubt, Footing, PointResult, error_code, reading_json

__all__ = [
    "Dlt645Session",
    "Doubt",
    "Footing",
    "ModbusSession",
    "PointResult",
    "bus_device",
    "error_code",
    "reading_json",
    "transaction_ids",
]
