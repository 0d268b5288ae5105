"""Payloads of DL/T 645-2007 items: bytes <-> values, by the catalogue.

A value is never guessed: a payload of another length than the item's, digits that are none, dates
that do not exist are errors, and all FF is None. Numbers are exact `Decimal`s with the item's own
number of decimals.
"""

from protocols.dlt645.catalogue import Item
from protocols.dlt645.formats import MeterTime, Value
from protocols.errors import LocalProtocolError

__all__ = ["MeterTime", "Value", "decode", "encode"]


def decode(item: Item, payload: bytes) -> tuple[Value, ...]:
    """The values of a payload (33H taken off, identifier not included), one a member.

    A demand is two members: its value and the time it occurred. None = the meter has no value.
    BadContent (`code`: short_data, long_data, not_bcd, not_ascii, bad_date, bad_time) when the
    bytes cannot be the item; LocalProtocolError(code="not_decodable") when its layout is unknown.
    """
    if item.layout is None:
        raise _not_decodable(item)
    return item.layout.decode(payload)


def encode(item: Item, *values: Value) -> bytes:
    """The payload that `decode` gives these values for: the meter's side.

    LocalProtocolError (`code`: value_count, wrong_type, too_many_decimals, out_of_range,
    not_decodable) when they do not fit.
    """
    if item.layout is None:
        raise _not_decodable(item)
    return item.layout.encode(values)


def _not_decodable(item: Item) -> LocalProtocolError:
    return LocalProtocolError(
        f"the layout of {item.di} ({item.name_en}) is not known here", code="not_decodable"
    )
