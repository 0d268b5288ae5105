"""One conversation at a time on one half-duplex medium, and a record of every attempt.

It knows no protocol: what a frame is and what it means to a request comes with the request.
"""

from headend.bus.bus import Bus
from headend.bus.latency import BOUNDS_S, LatencyCounts
from headend.bus.request import BusPort, BusRequest, Late, Priority
from headend.bus.settings import BusSettings
from headend.bus.shares import Shares
from headend.bus.statistics import BusState, BusStatistics, DeviceStatistics

__all__ = [
    "BOUNDS_S",
    "Bus",
    "BusPort",
    "BusRequest",
    "BusSettings",
    "BusState",
    "BusStatistics",
    "DeviceStatistics",
    "Late",
    "LatencyCounts",
    "Priority",
    "Shares",
]
