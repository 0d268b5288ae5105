"""The session that a meter's protocol needs, with everything the configuration says of it."""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from headend.bus import BusPort
from headend.config import Config
from headend.config.meter_rules import MODBUS
from headend.domain.clock import Clock
from headend.domain.meter import Meter
from headend.drivers.dlt645 import Dlt645Session
from headend.drivers.modbus import ModbusSession, transaction_ids
from headend.drivers.modbus_check import Notice
from headend.drivers.modbus_line import line_of
from headend.drivers.modbus_memory import DeviceMemory
from protocols.dlt645.learned import NOTHING_LEARNED, Learned
from protocols.dlt645.profile import GENERIC, MeterProfile
from protocols.errors import LocalProtocolError
from protocols.modbus.profile import DeviceProfile

log = logging.getLogger(__name__)

T = TypeVar("T")

Session = Dlt645Session | ModbusSession

# Meters that keep to the standard. Of the old edition the set of all energies is often refused.
GENERICS = {
    "dlt645-2007": GENERIC,
    "dlt645-1997": MeterProfile(
        id="generic_1997", edition="dlt645-1997", refuses=frozenset({"90FF"})
    ),
}


class ConfiguredSessions:
    """Opens a meter's session on its bus. Keep what it gives: sessions remember what they learn.

    `config` may be replaced and `buses` changed in place: the next session is opened by what holds
    then. Transactions of a bus go on being numbered, so that a late reply to a question of the
    sessions before serves none of the new ones.
    """

    def __init__(
        self,
        config: Config,
        buses: Mapping[str, BusPort],
        *,
        clock: Clock,
        recall: Callable[[Meter], Mapping[str, Any] | None] = lambda _meter: None,
        notice: Callable[[Meter, Notice], None] | None = None,
    ) -> None:
        """`recall`: what a meter has shown before, as its session's `learned.to_json()` gave it.

        `notice`: told what a Modbus device says of itself that is not as it should be.
        """
        self.config = config
        self._recall = recall
        self._notice = notice
        self._buses = buses
        self._clock = clock
        self._transactions: dict[str, Iterator[int]] = {}

    def __call__(self, meter: Meter) -> Session:
        """A new session with the meter."""
        config = self.config
        section = config.buses[meter.bus]
        if meter.protocol in MODBUS:
            device = None if meter.profile is None else config.profiles[meter.profile]
            assert isinstance(device, DeviceProfile)
            if meter.bus not in self._transactions:
                self._transactions[meter.bus] = transaction_ids()
            return ModbusSession(
                self._buses[meter.bus],
                int(meter.address),
                device,
                tcp=meter.protocol == "modbus-tcp",
                clock=self._clock,
                ct=meter.ct,
                pt=meter.pt,
                attempts=section.attempts,
                transactions=self._transactions[meter.bus],
                line=line_of(section.link_spec, device),
                memory=self._learned(meter, DeviceMemory.from_json, DeviceMemory()),
                notice=None if self._notice is None else partial(self._notice, meter),
            )
        model = GENERICS[meter.protocol]
        if meter.profile is not None:
            found = config.profiles[meter.profile]
            assert isinstance(found, MeterProfile)
            model = found
        return Dlt645Session(
            self._buses[meter.bus],
            meter.address,
            zone=config.zone,
            # The driver sees the meter's own registers, before the transformers' ratio.
            capacity_kw=None if meter.capacity_kw is None else meter.capacity_kw / meter.multiplier,
            profile=model,
            wakeup=section.wakeup if meter.profile is None else None,
            attempts=section.attempts,
            learned=self._learned(meter, Learned.from_json, NOTHING_LEARNED),
        )

    def _learned(self, meter: Meter, from_json: Callable[[Mapping[str, Any]], T], nothing: T) -> T:
        """What the meter has shown before; nothing when it is not known or cannot be used."""
        tree = self._recall(meter)
        if tree is None:
            return nothing
        try:
            return from_json(tree)
        except LocalProtocolError as error:
            log.warning("meter=%s what it has shown before is not used: %s", meter.id, error)
            return nothing
