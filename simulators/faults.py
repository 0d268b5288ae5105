"""What meters and lines do wrong, by name. Composable, per meter, settable while running.

A fault acts in one of three places of an answer: on a register's value, on the payload's bytes, or
on the finished transmissions. When it acts is told apart from what it does (`When`).

As text, for the command line and control messages: `NAME` or `NAME:key=value,...`, for example
`late_reply:delay_ms=900,every=5` or `jump:nth=3,kwh=1000`. Keys of every fault: `every`, `nth` with
`count`, `probability`, `from_ms`, `until_ms`, `di`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from random import Random
from typing import Any

from protocols.dlt645.frame import build, parse
from simulators.damage import Damaged, double_byte, flip_positions, lose_byte
from simulators.meter645_replies import (
    of_other_meter,
    report,
    to_other_question,
    with_other_number,
)
from simulators.wire import Transmission, char_seconds

_COUNT_KWH = Decimal("0.01")


def seeded(seed: int) -> Random:
    """Chance that can be had again: the same seed, the same faults."""
    return Random(seed)  # noqa: S311 - nothing here is a secret


@dataclass(frozen=True, slots=True)
class When:
    """On which of the requests that reach a meter a fault acts; all conditions together.

    `every` n: each n-th. `nth` with `count`: the n-th (from 1) and the ones behind it, `count` in
    all. `from_ms` <= the meter's wall time < `until_ms`. `di`: only reads of that identifier (on
    Modbus of exactly these registers, `FUNCTION:ADDRESS:COUNT`).
    """

    every: int = 1
    nth: int | None = None
    count: int = 1
    probability: float = 1.0
    from_ms: int | None = None
    until_ms: int | None = None
    di: str | None = None

    def covers(self, di: str, now_ms: int) -> bool:
        """Whether a request is one of those that are counted."""
        if self.di is not None and di.upper() != self.di.upper():
            return False
        if self.from_ms is not None and now_ms < self.from_ms:
            return False
        return self.until_ms is None or now_ms < self.until_ms

    def hits(self, number: int, rng: Random) -> bool:
        """Whether the `number`-th counted request (from 1) is hit."""
        if self.nth is not None and not self.nth <= number < self.nth + self.count:
            return False
        if number % self.every:
            return False
        return self.probability >= 1.0 or rng.random() < self.probability


@dataclass(frozen=True, slots=True)
class Asked:
    """The request an answer is for."""

    raw: bytes
    address: str
    di: str
    now_ms: int


@dataclass(slots=True)
class Fault:
    """One fault of one meter. What it remembers (a stuck register) lives and ends with it."""

    name: str
    when: When = field(default_factory=When)
    options: Mapping[str, str] = field(default_factory=dict)
    rng: Random = field(default_factory=lambda: seeded(0))
    defaults: Mapping[str, str] = field(default_factory=dict)
    seen: int = 0
    memory: dict[str, Decimal] = field(default_factory=dict)

    def fires(self, asked: Asked) -> bool:
        """Count this request; whether the fault acts on it. Once for each request."""
        if not self.when.covers(asked.di, asked.now_ms):
            return False
        self.seen += 1
        return self.when.hits(self.seen, self.rng)

    def register(self, point: str, value: Decimal) -> Decimal:
        """A register's value as the faulty meter has it."""
        act = _REGISTER_ACTS.get(self.name)
        return act(self, point, value) if act else value

    def payload(self, payload: bytes) -> bytes:
        """The bytes behind the identifier as the faulty meter sends them."""
        act = _PAYLOAD_ACTS.get(self.name)
        return act(self, payload) if act else payload

    def reply(self, asked: Asked, sent: Sequence[Transmission]) -> list[Transmission]:
        """The transmissions as they really leave."""
        act = _REPLY_ACTS.get(self.name)
        return act(self, asked, list(sent)) if act else list(sent)

    def number(self, key: str) -> int:
        """An option as a whole number, or its default."""
        return int(self.options.get(key, self.defaults[key]))

    def kwh(self) -> Decimal:
        """The option `kwh`, or its default."""
        return Decimal(self.options.get("kwh", self.defaults["kwh"]))


# --- on registers ---------------------------------------------------------------------------


def _stuck(fault: Fault, point: str, value: Decimal) -> Decimal:
    return fault.memory.setdefault(point, value)


def _backward(fault: Fault, _point: str, value: Decimal) -> Decimal:
    return max(_COUNT_KWH * 0, value - fault.kwh())


def _zero(_fault: Fault, _point: str, value: Decimal) -> Decimal:
    return value * 0


def _jump(fault: Fault, _point: str, value: Decimal) -> Decimal:
    return (value + fault.kwh()) % 800_000  # fits signed and unsigned registers alike


# --- on payloads ----------------------------------------------------------------------------


def _non_bcd(fault: Fault, payload: bytes) -> bytes:
    """One nibble above 9 in the lowest byte: no decimal number any more."""
    return bytes(((payload[0] & 0xF0) | fault.number("nibble"),)) + payload[1:] if payload else b""


def _all_ff(_fault: Fault, payload: bytes) -> bytes:
    return b"\xff" * len(payload)


def _short_payload(fault: Fault, payload: bytes) -> bytes:
    return payload[: max(0, len(payload) - fault.number("bytes"))]


def _long_payload(fault: Fault, payload: bytes) -> bytes:
    return payload + b"\x00" * fault.number("bytes")


# --- on transmissions -----------------------------------------------------------------------

_Sent = list[Transmission]


def _each(sent: _Sent, change: Callable[[bytes], bytes]) -> _Sent:
    """Each transmission changed; one whose length stays keeps its wrong parity bits."""
    found = [(one, change(one.data)) for one in sent if one.data]
    return [
        replace(one, data=data, bad=one.bad if len(data) == len(one.data) else ())
        for one, data in found
    ]


def _later(sent: _Sent, more_s: float) -> _Sent:
    return [replace(one, delay_s=one.delay_s + more_s) for one in sent]


def _damaged(sent: _Sent, damage: Callable[[bytes], Damaged]) -> _Sent:
    """Each transmission as a `damage` leaves it, with the characters whose parity is off."""
    seen = [(one, damage(one.data)) for one in sent if one.data]
    return [Transmission(one.delay_s, some.data, some.bad) for one, some in seen]


def _silent(_fault: Fault, _asked: Asked, _sent: _Sent) -> _Sent:
    return []


def _noise(fault: Fault, _asked: Asked, sent: _Sent) -> _Sent:
    """Random bytes straight before each transmission."""
    return _each(sent, lambda data: fault.rng.randbytes(fault.number("bytes")) + data)


def _wrong_checksum(_fault: Fault, _asked: Asked, sent: _Sent) -> _Sent:
    return _each(
        sent, lambda data: data[:-2] + bytes((b + 1 & 0xFF) for b in data[-2:-1]) + data[-1:]
    )


def _late(fault: Fault, _asked: Asked, sent: _Sent) -> _Sent:
    return _later(sent, fault.number("delay_ms") / 1000)


def _echo(_fault: Fault, asked: Asked, sent: _Sent) -> _Sent:
    """The request comes back first, as from an adapter that does not mute its receiver."""
    return [Transmission(0.0, asked.raw), *sent]


def _wrong_address(fault: Fault, asked: Asked, sent: _Sent) -> _Sent:
    """A whole, good frame of another meter: its last digit is one further, or as told."""
    other = fault.options.get(
        "address", asked.address[:-1] + str((int(asked.address[-1]) + 1) % 10)
    )
    return _each(sent, lambda data: of_other_meter(data, other))


def _wrong_di(_fault: Fault, _asked: Asked, sent: _Sent) -> _Sent:
    return _each(sent, to_other_question)


def _drop_first(_fault: Fault, _asked: Asked, sent: _Sent) -> _Sent:
    return _each(sent, lambda data: data[1:])


def _short_reply(fault: Fault, _asked: Asked, sent: _Sent) -> _Sent:
    missing = fault.number("bytes")
    return _each(sent, lambda data: data[: max(1, len(data) - missing)])


def _twice(fault: Fault, _asked: Asked, sent: _Sent) -> _Sent:
    """Everything is said again, a while after the first time."""
    return [*sent, *_later(sent, fault.number("delay_ms") / 1000)]


def _parity(fault: Fault, _asked: Asked, sent: _Sent) -> _Sent:
    """One bit of a character is wrong, and its parity tells."""

    def damage(data: bytes) -> Damaged:
        at = fault.rng.randrange(len(data)) * 9 + fault.rng.randrange(8)
        return flip_positions(data, [at])

    return _damaged(sent, damage)


def _two_bits(fault: Fault, _asked: Asked, sent: _Sent) -> _Sent:
    """Two bits of one character: parity sees nothing."""

    def damage(data: bytes) -> Damaged:
        at = fault.rng.randrange(len(data)) * 9
        return flip_positions(data, [at + bit for bit in fault.rng.sample(range(8), 2)])

    return _damaged(sent, damage)


def _lost_byte(fault: Fault, _asked: Asked, sent: _Sent) -> _Sent:
    return _damaged(sent, lambda data: lose_byte(data, fault.rng))


def _double_byte(fault: Fault, _asked: Asked, sent: _Sent) -> _Sent:
    return _damaged(sent, lambda data: double_byte(data, fault.rng))


def _double_start(_fault: Fault, _asked: Asked, sent: _Sent) -> _Sent:
    """The first start byte is said twice, as by an interrupt that came too early."""
    return _each(sent, lambda data: data.replace(b"\x68", b"\x68\x68", 1))


def _pause(fault: Fault, _asked: Asked, sent: _Sent) -> _Sent:
    """A pause inside a frame, behind `after` characters (Tb). `baud` tells how long those take."""
    after = fault.number("after")
    char_s = char_seconds(fault.number("baud"))
    found: _Sent = []
    for one in sent:
        rest_s = one.delay_s + after * char_s + fault.number("ms") / 1000
        found.append(Transmission(one.delay_s, one.data[:after]))
        found.append(Transmission(rest_s, one.data[after:]))
    return [one for one in found if one.data]


def _spontaneous(fault: Fault, asked: Asked, sent: _Sent) -> _Sent:
    """The report state word comes unasked, `delay_ms` after the request; the reply behind it."""
    first = Transmission(fault.number("delay_ms") / 1000, report(asked.address))
    return [first, *_later(sent, fault.number("gap_ms") / 1000)]


def _suffix(fault: Fault, _asked: Asked, sent: _Sent) -> _Sent:
    """Bytes behind every frame, as from units that cut packets at line ends."""
    tail = bytes.fromhex(fault.options.get("hex", fault.defaults["hex"]))
    return _each(sent, lambda data: data + tail)


def _wrong_sequence(_fault: Fault, _asked: Asked, sent: _Sent) -> _Sent:
    return _each(sent, with_other_number)


def _refuse(fault: Fault, asked: Asked, sent: _Sent) -> _Sent:
    """An abnormal reply with the error byte `err` instead of data."""
    frame = parse(asked.raw, check=False)
    refusal = build(asked.address, frame.control | 0xC0, bytes((fault.number("err"),)))
    return [Transmission(one.delay_s, refusal) for one in sent[:1]]


_REGISTER_ACTS: Mapping[str, Callable[[Fault, str, Decimal], Decimal]] = {
    "stuck": _stuck,
    "backward_register": _backward,
    "one_bad_zero": _zero,
    "jump": _jump,
}
_PAYLOAD_ACTS: Mapping[str, Callable[[Fault, bytes], bytes]] = {
    "non_bcd": _non_bcd,
    "all_ff": _all_ff,
    "short_payload": _short_payload,
    "long_payload": _long_payload,
}
_REPLY_ACTS: Mapping[str, Callable[[Fault, Asked, _Sent], _Sent]] = {
    "silent": _silent,
    "noise": _noise,
    "wrong_checksum": _wrong_checksum,
    "late_reply": _late,
    "echo": _echo,
    "wrong_address": _wrong_address,
    "wrong_di": _wrong_di,
    "drop_first_byte": _drop_first,
    "short_reply": _short_reply,
    "twice": _twice,
    "parity": _parity,
    "two_bits": _two_bits,
    "lost_byte": _lost_byte,
    "double_byte": _double_byte,
    "double_start": _double_start,
    "pause": _pause,
    "spontaneous": _spontaneous,
    "suffix": _suffix,
    "wrong_sequence": _wrong_sequence,
    "refuse": _refuse,
}
FAULT_NAMES = (*_REGISTER_ACTS, *_PAYLOAD_ACTS, *_REPLY_ACTS)

REGISTER_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "stuck": {},
    "backward_register": {"kwh": "1"},
    "one_bad_zero": {},
    "jump": {"kwh": "1000"},
}
_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    **REGISTER_DEFAULTS,
    "non_bcd": {"nibble": "10"},
    "short_payload": {"bytes": "1"},
    "long_payload": {"bytes": "1"},
    "noise": {"bytes": "6"},
    "late_reply": {"delay_ms": "1500"},
    "wrong_address": {"address": ""},
    "short_reply": {"bytes": "4"},
    "twice": {"delay_ms": "300"},
    "pause": {"after": "8", "ms": "300", "baud": "2400"},
    "spontaneous": {"delay_ms": "60", "gap_ms": "300"},
    "suffix": {"hex": "0D0A"},
    "refuse": {"err": "2"},
}
DLT645_FAULTS: Mapping[str, Mapping[str, str]] = {
    name: _DEFAULTS.get(name, {}) for name in FAULT_NAMES
}
_ONCE = frozenset({"one_bad_zero", "jump"})  # by their nature these happen and are gone
_WHEN_KEYS = {"every", "nth", "count", "probability", "from_ms", "until_ms", "di"}


def make_fault(
    name: str,
    *,
    table: Mapping[str, Mapping[str, str]] = DLT645_FAULTS,
    rng: Random | None = None,
    **options: str | float,
) -> Fault:
    """A fault by name; ValueError for an unknown name or key, or a value that is no number.

    `table`: the names a kind of device knows, each with its options and their defaults.
    """
    if name not in table:
        msg = f"no fault is called {name!r}; there are {', '.join(sorted(table))}"
        raise ValueError(msg)
    texts = {key: str(value) for key, value in options.items()}
    known = _WHEN_KEYS | set(table[name])
    unknown = set(texts) - known
    if unknown:
        msg = f"{name} knows no {', '.join(sorted(unknown))}; it takes {', '.join(sorted(known))}"
        raise ValueError(msg)
    if name in _ONCE and "every" not in texts:
        texts.setdefault("nth", "1")
    when = _when({key: texts[key] for key in texts if key in _WHEN_KEYS})
    own = {key: texts[key] for key in texts if key not in _WHEN_KEYS}
    fault = Fault(name, when, own, rng or seeded(0), table[name])
    _check_options(fault)
    return fault


def parse_fault(
    text: str,
    *,
    table: Mapping[str, Mapping[str, str]] = DLT645_FAULTS,
    rng: Random | None = None,
) -> Fault:
    """`NAME` or `NAME:key=value,...`; ValueError says what is wrong and what is known."""
    name, _, rest = text.partition(":")
    options: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not value:
            msg = f"in {text!r}: {part!r} should be key=value"
            raise ValueError(msg)
        options[key.strip()] = value.strip()
    known: dict[str, Any] = options  # their names are the device's, not this function's
    return make_fault(name.strip(), table=table, rng=rng, **known)


def _when(texts: Mapping[str, str]) -> When:
    def whole(key: str, default: int | None, least: int) -> int | None:
        value = int(texts[key]) if key in texts else default
        if value is not None and value < least:
            msg = f"{key} must be at least {least}, not {value}"
            raise ValueError(msg)
        return value

    probability = float(texts.get("probability", "1"))
    if not 0.0 <= probability <= 1.0:
        msg = f"probability is 0..1, not {probability}"
        raise ValueError(msg)
    return When(
        every=whole("every", 1, 1) or 1,
        nth=whole("nth", None, 1),
        count=whole("count", 1, 1) or 1,
        probability=probability,
        from_ms=whole("from_ms", None, 0),
        until_ms=whole("until_ms", None, 0),
        di=texts.get("di"),
    )


def _check_options(fault: Fault) -> None:
    for key in fault.defaults:
        if key in _CHECKS:
            _CHECKS[key](fault)
        elif fault.number(key) < 0 and key not in _MAY_BE_LESS:
            msg = f"{key} of {fault.name} is not below 0"
            raise ValueError(msg)


def _check_kwh(fault: Fault) -> None:
    try:
        fault.kwh()
    except InvalidOperation:
        msg = f"kwh of {fault.name} is a number, not {fault.options['kwh']!r}"
        raise ValueError(msg) from None


def _check_address(fault: Fault) -> None:
    address = fault.options.get("address", "0" * 12)
    if len(address) != 12 or not (address.isascii() and address.isdigit()):
        msg = f"an address has twelve digits, not {address!r}"
        raise ValueError(msg)


def _check_hex(fault: Fault) -> None:
    bytes.fromhex(fault.options.get("hex", ""))


def _check_err(fault: Fault) -> None:
    if not 0 <= fault.number("err") <= 0xFF:
        msg = f"err of {fault.name} is a byte, not {fault.number('err')}"
        raise ValueError(msg)


_MAY_BE_LESS = frozenset(("registers", "powers"))  # so many more, or fewer
_CHECKS: Mapping[str, Callable[[Fault], None]] = {
    "kwh": _check_kwh,
    "address": _check_address,
    "hex": _check_hex,
    "err": _check_err,
}
