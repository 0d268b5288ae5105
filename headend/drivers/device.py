"""By which name a bus knows a meter."""

from headend.domain.meter import Meter


def bus_device(meter: Meter) -> str:
    """The `device` of every request that a session of this meter makes."""
    return f"unit {meter.address}" if meter.protocol.startswith("modbus") else meter.address
