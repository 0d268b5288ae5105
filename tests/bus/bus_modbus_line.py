"""Modbus devices on the scripted line: who answers what, and when."""

import random
from collections.abc import Callable

from bus_bench_line import Say

from headend.bus import BusRequest, Late
from protocols.framing import Match
from protocols.modbus.device import build_exception, build_reply, parse_request
from protocols.modbus.master import (
    ReadRequest,
    delimiter_for,
    match,
    read_request,
    reply_length,
)

BAUD = 9600
CHAR_S = 10 / BAUD


def question(
    unit: int = 1,
    address: int = 0,
    count: int = 2,
    *,
    transaction: int | None = None,
    late: Late | None = None,
    **more,
) -> tuple[BusRequest, ReadRequest]:
    """A request for the bus, and what it asks."""
    asked = read_request(unit, 4, address, count, transaction=transaction)
    if late is None:
        late = Late.ANONYMOUS if transaction is None else Late.NUMBERED
    request = BusRequest(
        f"unit {unit}",
        asked.raw,
        delimiter_for(asked),
        more.pop("match", lambda raw: match(asked, raw)),
        reply_length(asked),
        late=late,
        **{"quiet_s": 0.02, "quiet_chars": 3.5, **more},
    )
    return request, asked


def registers(asked: ReadRequest, nth: int = 0) -> list[int]:
    """What the device has there: the address itself, and in the second word who asked."""
    return [asked.address, nth, *range(asked.address + 2, asked.address + asked.count)][
        : asked.count
    ]


def reply(raw: bytes, nth: int = 0, *, tcp: bool = False) -> bytes:
    asked = parse_request(raw, tcp=tcp)
    assert asked is not None
    return build_reply(asked, registers(asked, nth))


def refusal(raw: bytes, code: int, *, tcp: bool = False) -> bytes:
    asked = parse_request(raw, tcp=tcp)
    assert asked is not None
    return build_exception(asked, code)


def unreached(asked: ReadRequest) -> Callable[[bytes], Match]:
    """As the driver tells it: what a gateway says for a device it does not reach."""

    def judged(raw: bytes) -> Match:
        found = match(asked, raw)
        return Match.UNREACHED if found is Match.REFUSAL else found

    return judged


class Sluggish:
    """Every reply names the request it answers; `late_share` of them take up to `most_s`.

    `most_s` is from the end of the request to the last byte of the reply.
    """

    def __init__(self, seed: int, most_s: float, late_share: float = 0.4, lost_share: float = 0.05):
        self._random = random.Random(seed)
        self._most_s = most_s
        self._late_share = late_share
        self._lost_share = lost_share

    def __call__(self, raw: bytes, nth: int) -> list[Say]:
        if self._random.random() < self._lost_share:
            return []
        said = reply(raw, nth)
        delay_s = 0.02 + self._random.random() * 0.1
        if self._random.random() < self._late_share:
            delay_s = self._random.random() * (self._most_s - len(said) * CHAR_S - 1e-6)
        return [Say(said, after_s=delay_s)]
