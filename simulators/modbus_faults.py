"""What Modbus devices and gateways do wrong, by name; the text form is that of `faults`.

An answer is held as what it says (unit, PDU, transaction) and how it leaves (delay, bytes before
and behind, what is cut off), so that one fault acts alike on a line and over TCP.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from random import Random

from protocols.modbus.adu import build_rtu, build_tcp
from protocols.modbus.decode import SCALE_POWER_MAX, encode
from protocols.modbus.delimiter import COUNT_MAX
from protocols.modbus.master import ReadRequest
from protocols.modbus.register import FLOATS, Register
from simulators.faults import REGISTER_DEFAULTS, Fault, make_fault, parse_fault


@dataclass(frozen=True, slots=True)
class Answer:
    """One frame that leaves `delay_s` after the request. `crc_xor` acts on a line only."""

    delay_s: float
    unit: int
    pdu: bytes
    tid_shift: int = 0
    before: bytes = b""
    behind: bytes = b""
    crc_xor: int = 0
    cut: int = 0

    def frame(self, transaction: int | None) -> bytes:
        """The bytes: RTU for None, else Modbus TCP with that transaction (shifted)."""
        if transaction is None:
            raw = build_rtu(self.unit, self.pdu)
            raw = raw[:-1] + bytes((raw[-1] ^ self.crc_xor,))
        else:
            raw = build_tcp((transaction + self.tid_shift) & 0xFFFF, self.unit, self.pdu)
        return self.before + raw[: len(raw) - self.cut] + self.behind


_Answers = list[Answer]


def _silent(_fault: Fault, _asked: ReadRequest, _answers: _Answers) -> _Answers:
    return []


def _late(fault: Fault, _asked: ReadRequest, answers: _Answers) -> _Answers:
    more_ms = fault.number("delay_ms")
    jitter_ms = fault.number("jitter_ms")
    if jitter_ms:
        more_ms += fault.rng.randrange(jitter_ms + 1)
    return [replace(one, delay_s=one.delay_s + more_ms / 1000) for one in answers]


def _noise(fault: Fault, _asked: ReadRequest, answers: _Answers) -> _Answers:
    """Random bytes straight before and behind each frame."""
    before, behind = fault.number("before"), fault.number("behind")
    return [
        replace(one, before=fault.rng.randbytes(before), behind=fault.rng.randbytes(behind))
        for one in answers
    ]


def _wrong_crc(_fault: Fault, _asked: ReadRequest, answers: _Answers) -> _Answers:
    return [replace(one, crc_xor=0x40) for one in answers]


def _echo(_fault: Fault, asked: ReadRequest, answers: _Answers) -> _Answers:
    """The request comes back first, as from an adapter that does not mute its receiver."""
    return [Answer(0.0, asked.unit, _asked_pdu(asked)), *answers]


def _foreign(fault: Fault, asked: ReadRequest, answers: _Answers) -> _Answers:
    """Another unit's whole, good reply to the same question comes first, in the same breath."""
    other = 1 + asked.unit % 247
    words = fault.rng.randbytes(2 * min(asked.count, COUNT_MAX))
    pdu = bytes((asked.function, len(words))) + words
    return [
        replace(one, before=one.before + _frame_of(asked, other, pdu)) if index == 0 else one
        for index, one in enumerate(answers)
    ]


def _wrong_unit(_fault: Fault, asked: ReadRequest, answers: _Answers) -> _Answers:
    return [replace(one, unit=1 + asked.unit % 247) for one in answers]


def _wrong_function(_fault: Fault, asked: ReadRequest, answers: _Answers) -> _Answers:
    """The other read function's number on the same registers."""
    other = bytes((7 - asked.function,))
    return [replace(one, pdu=other + one.pdu[1:]) for one in answers]


def _wrong_count(fault: Fault, asked: ReadRequest, answers: _Answers) -> _Answers:
    """`registers` more or fewer than were asked for, in a frame that is whole."""
    changed = []
    for one in answers:
        words = one.pdu[2:]
        more = fault.number("registers")
        words = words[: 2 * more] if more < 0 else words + b"\x00\x2a" * more
        changed.append(replace(one, pdu=bytes((asked.function, len(words))) + words))
    return changed


def _wrong_transaction(_fault: Fault, _asked: ReadRequest, answers: _Answers) -> _Answers:
    return [replace(one, tid_shift=-1) for one in answers]


def _truncated(fault: Fault, _asked: ReadRequest, answers: _Answers) -> _Answers:
    missing = fault.number("bytes")
    return [replace(one, cut=min(missing, len(one.pdu))) for one in answers]


def _twice(fault: Fault, _asked: ReadRequest, answers: _Answers) -> _Answers:
    gap_s = fault.number("delay_ms") / 1000
    return [*answers, *(replace(one, delay_s=one.delay_s + gap_s) for one in answers)]


def _refusing(code: int) -> Callable[[Fault, ReadRequest, _Answers], _Answers]:
    def act(_fault: Fault, asked: ReadRequest, answers: _Answers) -> _Answers:
        pdu = bytes((asked.function | 0x80, code))
        return [replace(one, pdu=pdu) for one in answers[:1]]

    return act


def _exception(fault: Fault, asked: ReadRequest, answers: _Answers) -> _Answers:
    return _refusing(fault.number("code"))(fault, asked, answers)


def _asked_pdu(asked: ReadRequest) -> bytes:
    return bytes((asked.function,)) + asked.address.to_bytes(2) + asked.count.to_bytes(2)


def _frame_of(asked: ReadRequest, unit: int, pdu: bytes) -> bytes:
    if asked.transaction is None:
        return build_rtu(unit, pdu)
    return build_tcp(asked.transaction, unit, pdu)


NIGHT_FAULT = "silent_at_night"


def counted(firing: Sequence[Fault], point: str, value: Decimal, limit: Decimal | None) -> Decimal:
    """A counter as the faulty device shows it; `limit`: the first number its register has not.

    `rollover`: at its first request it stands `kwh` before its end. `exchange`: from its first
    request on another device counts, from `kwh` on.
    """
    for fault in firing:
        if fault.name == "rollover" and limit is not None:
            begin = fault.memory.setdefault(point, limit - fault.kwh() - value)
            value = value + begin  # the register itself begins anew at its end
        elif fault.name == "exchange":
            value = value - fault.memory.setdefault(point, value) + fault.kwh()
        else:
            value = fault.register(point, value)
    return value


def another_text(firing: Sequence[Fault], point: str, text: str) -> str:
    """What a device says of itself: another one has another serial number."""
    if point == "serial_number" and any(fault.name == "exchange" for fault in firing):
        return text[:-1] + ("1" if text[-1:] != "1" else "2")
    return text


def spoilt_words(firing: Sequence[Fault], register: Register) -> tuple[int, ...] | None:
    """Words that say nothing, whatever the register measures; None when none of that is told."""
    names = {fault.name for fault in firing}
    if "all_zero" in names:
        return (0,) * register.words
    if "no_value" not in names:
        return None
    if register.missing or register.type in FLOATS:
        return encode(register, None)
    return (0xFFFF,) * register.words


def moved_power(firing: Sequence[Fault], power: int) -> int:
    """A scale factor as the faulty device has it: `scale_moves` by `powers`."""
    for fault in firing:
        if fault.name == "scale_moves":
            power += fault.number("powers")
    return max(-SCALE_POWER_MAX, min(SCALE_POWER_MAX, power))


_ACTS: Mapping[str, Callable[[Fault, ReadRequest, _Answers], _Answers]] = {
    "silent": _silent,
    "late_reply": _late,
    "noise": _noise,
    "wrong_crc": _wrong_crc,
    "echo": _echo,
    "foreign": _foreign,
    "wrong_unit": _wrong_unit,
    "wrong_function": _wrong_function,
    "wrong_count": _wrong_count,
    "wrong_transaction": _wrong_transaction,
    "truncated": _truncated,
    "twice": _twice,
    "busy": _refusing(0x06),
    "gateway_path": _refusing(0x0A),
    "gateway_target": _refusing(0x0B),
    "exception": _exception,
    "half_open": _silent,
    "hang_up": _silent,
    NIGHT_FAULT: _silent,
}
_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "late_reply": {"delay_ms": "1500", "jitter_ms": "0"},
    "noise": {"before": "3", "behind": "3"},
    "wrong_count": {"registers": "-1"},
    "truncated": {"bytes": "3"},
    "twice": {"delay_ms": "300"},
    "exception": {"code": "4"},
}
# What acts on registers, whatever their kind, before a frame is made of them.
_ON_WORDS: Mapping[str, Mapping[str, str]] = {
    "all_zero": {},
    "no_value": {},
    "rollover": {"kwh": "1"},
    "exchange": {"kwh": "0"},
    "scale_moves": {"powers": "1"},
}
# What a connection does, and no line can: the device keeps silent there.
CONNECTION_FAULTS = frozenset({"half_open", "hang_up"})
MODBUS_FAULTS: Mapping[str, Mapping[str, str]] = {
    **REGISTER_DEFAULTS,
    **_ON_WORDS,
    **{name: _DEFAULTS.get(name, {}) for name in _ACTS},
}


def act_on(fault: Fault, asked: ReadRequest, answers: Sequence[Answer]) -> list[Answer]:
    """The answers as they really leave."""
    act = _ACTS.get(fault.name)
    return act(fault, asked, list(answers)) if act else list(answers)


def make_modbus_fault(name: str, *, rng: Random | None = None, **options: str | float) -> Fault:
    """As `make_fault`, with the names of Modbus devices."""
    return make_fault(name, table=MODBUS_FAULTS, rng=rng, **options)


def parse_modbus_fault(text: str, *, rng: Random | None = None) -> Fault:
    """As `parse_fault`, with the names of Modbus devices."""
    return parse_fault(text, table=MODBUS_FAULTS, rng=rng)
