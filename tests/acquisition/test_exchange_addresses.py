"""A declared exchange names an address that the bus can ask."""

from dataclasses import replace

import pytest

from headend.acquisition.registry import Registry
from headend.domain.errors import ConfigError
from headend.domain.meter import Meter, MeterExchange

OF_645 = Meter("A", "SP-1", "b", "dlt645-2007", "202600000017", "p")
OF_RTU = Meter("B", "SP-2", "b", "modbus-rtu", "17", "p", profile="eastron_sdm630")
OF_TCP = replace(OF_RTU, id="C", service_point="SP-3", protocol="modbus-tcp")


def exchange(old: Meter, address: str) -> MeterExchange:
    return MeterExchange(0, "", old.id, "NEW", address, {}, {}, "me", "because")


@pytest.mark.parametrize(
    ("old", "address"),
    [(OF_645, ""), (OF_645, "000000000001"), (OF_RTU, ""), (OF_RTU, "247"), (OF_TCP, "255")],
)
def test_an_address_that_fits_the_protocol_is_taken(old: Meter, address: str) -> None:
    registry = Registry([OF_645, OF_RTU, OF_TCP], [])
    assert registry.check_exchange(exchange(old, address)) == old
    assert registry.exchange(exchange(old, address)).address == (address or old.address)


@pytest.mark.parametrize(
    ("old", "address"),
    [(OF_645, "17"), (OF_645, "x" * 12), (OF_RTU, "0"), (OF_RTU, "248"), (OF_RTU, "000000000001"),
     (OF_RTU, "x"), (OF_TCP, "256")],
)  # fmt: skip
def test_an_address_that_does_not_fit_is_refused_before_anything_changes(
    old: Meter, address: str
) -> None:
    registry = Registry([OF_645, OF_RTU, OF_TCP], [])
    with pytest.raises(ConfigError, match="is not a"):
        registry.check_exchange(exchange(old, address))
