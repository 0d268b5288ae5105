"""The session that a meter's protocol needs, with everything the configuration says of it."""

from collections.abc import Callable, Iterator, Mapping

from headend.bus import BusPort
from headend.config import Config
from headend.config.meter_rules import MODBUS
from headend.domain.clock import Clock
from headend.domain.meter import Meter
from headend.drivers.dlt645 import Dlt645Session
from headend.drivers.modbus import ModbusSession, transaction_ids

Session = Dlt645Session | ModbusSession


def configured_sessions(
    config: Config, buses: Mapping[str, BusPort], *, clock: Clock
) -> Callable[[Meter], Session]:
    """Opens a meter's session on its bus. Keep what it gives: sessions remember what they learn."""
    transactions: dict[str, Iterator[int]] = {name: transaction_ids() for name in buses}

    def open_session(meter: Meter) -> Session:
        section = config.buses[meter.bus]
        if meter.protocol in MODBUS:
            assert meter.profile is not None
            return ModbusSession(
                buses[meter.bus],
                int(meter.address),
                config.profiles[meter.profile],
                tcp=meter.protocol == "modbus-tcp",
                clock=clock,
                ct=meter.ct,
                pt=meter.pt,
                attempts=section.attempts,
                transactions=transactions[meter.bus],
            )
        return Dlt645Session(
            buses[meter.bus],
            meter.address,
            zone=config.zone,
            # The driver sees the meter's own registers, before the transformers' ratio.
            capacity_kw=None if meter.capacity_kw is None else meter.capacity_kw / meter.multiplier,
            wakeup=section.wakeup,
            attempts=section.attempts,
        )

    return open_session
