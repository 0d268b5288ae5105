"""What is wrong when a new device gives nonsense: word order, one address off, a ratio, framing.

Looks at what came back for one read and says what would explain it, with the evidence. Pure: it
asks for nothing, and what it calls for (`neighbours`, `other_framing`) are reads, which change
nothing. A wrong order of words and an address that is one off look alike; where what came cannot
tell them apart both are named, the one that explains more of it first.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from protocols.errors import ErrorReply, LocalProtocolError, RemoteProtocolError
from protocols.framing import Match
from protocols.modbus.decode import decode
from protocols.modbus.delimiter import COUNT_MAX
from protocols.modbus.master import ReadRequest, match, read_request, reply_registers
from protocols.modbus.planner import Block
from protocols.modbus.plausible import TELLING, is_plausible
from protocols.modbus.power_check import power_factor_found
from protocols.modbus.ratio import Mismatch, ratio_check
from protocols.modbus.register import DeviceProfile, Register, WordOrder
from protocols.modbus.segments import segments

_SCALES = tuple(Decimal(1).scaleb(power) for power in (-1, 1, -2, 2, -3, 3))
_ALL_ONES = 0xFFFF


@dataclass(frozen=True, slots=True)
class Evidence:
    """One value. `read`: as the profile has it; `found`: as the finding would have it."""

    point: str
    read: str
    found: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One explanation. `code`: a word for programs; `advice`: what to change."""

    code: str
    message: str
    advice: str
    evidence: tuple[Evidence, ...] = ()


def diagnose(
    profile: DeviceProfile,
    request: ReadRequest,
    got: Sequence[int] | bytes,
    *,
    ct: Decimal | int = 1,
    pt: Decimal | int = 1,
) -> tuple[Finding, ...]:
    """What explains a reply that is wrong, the likeliest first; nothing where nothing is wrong.

    `got`: the registers that came, or every byte that did. Codes of bytes: `silent`,
    `rtu_over_tcp` (a converter that passes bytes on: use RTU framing), `modbus_tcp` (the other way
    about), `echo`, `wrong_unit`, `wrong_count`, `refused`, `noise`. Codes of registers:
    `nothing_there`, `word_order`, `byte_order`, `offset`, `scale`, `sign`, `ratio`, `ct_ratio`,
    `implausible`.
    """
    if isinstance(got, bytes):
        found = _of_bytes(request, got)
        if found is not None:
            return (found,)
        got = reply_registers(request, _reply_in(request, got))
    if len(got) != request.count:
        raise LocalProtocolError(
            f"{len(got)} registers do not answer a request for {request.count}", code="bad_count"
        )
    return _of_registers(_Came(profile, request, tuple(got), Decimal(ct), Decimal(pt)))


def neighbours(profile: DeviceProfile, block: Block) -> tuple[int, int]:
    """Address and count of a read that also tells one address off: one register more at both ends.

    As far as the device's limit and its rule of even addresses allow.
    """
    limit = min(profile.registers_max, COUNT_MAX)
    more = 2 if profile.even_only else 1
    address, behind = block.address, block.address + block.count
    if behind + more <= 0x10000 and behind + more - address <= limit:
        behind += more
    if address >= more and behind - address + more <= limit:
        address -= more
    return address, behind - address


def other_framing(request: ReadRequest) -> ReadRequest:
    """The same read in the other framing: what to try once, when nothing comes over TCP."""
    transaction = 1 if request.transaction is None else None
    return read_request(
        request.unit, request.function, request.address, request.count, transaction=transaction
    )


# -- bytes -----------------------------------------------------------------------------------------


def _reply_in(request: ReadRequest, data: bytes) -> bytes:
    """The frame that answers the request, among whatever came; without one the bytes."""
    frames = [one.raw for one in segments(data, tcp=request.transaction is not None) if one.good]
    return next((raw for raw in frames if match(request, raw) is Match.REPLY), data)


def _of_bytes(request: ReadRequest, data: bytes) -> Finding | None:
    """What is wrong with what came as a frame; None when a good reply is in it."""
    if not data:
        return Finding(
            "silent",
            "nothing came back",
            "check unit, speed and parity, and the two wires; over TCP try the other framing once",
        )
    tcp = request.transaction is not None
    raws = [one.raw for one in segments(data, tcp=tcp) if one.good]
    kinds = [match(request, raw) for raw in raws]
    if Match.REPLY in kinds:
        return _of_reply(request, raws[kinds.index(Match.REPLY)])
    if Match.REFUSAL in kinds:
        return _of_refusal(request, raws[kinds.index(Match.REFUSAL)])
    return _of_framing(request, data, tcp=tcp) or _of_others(request, raws, kinds, data)


def _of_reply(request: ReadRequest, raw: bytes) -> Finding | None:
    try:
        reply_registers(request, raw)
    except RemoteProtocolError as error:
        return Finding("wrong_count", str(error), "the device cannot give so many in one request")
    return None


def _of_refusal(request: ReadRequest, raw: bytes) -> Finding:
    try:
        reply_registers(request, raw)
    except ErrorReply as error:
        advice = {
            1: "the map's function (3 or 4) is not that of this device",
            2: "an address of the block is not there: another profile, or one address off",
            3: "fewer registers in one request, or an even number of them",
        }.get(error.error_byte or 0, "ask again later")
        return Finding("refused", str(error), advice)
    raise AssertionError("a refusal gives no registers")


def _of_framing(request: ReadRequest, data: bytes, *, tcp: bool) -> Finding | None:
    """Whether the bytes are a good frame of the other framing."""
    asked = other_framing(request)
    for one in segments(data, tcp=not tcp):
        if not one.good:
            continue
        raw = one.raw
        if not tcp:  # whatever its transaction: none was sent
            asked = read_request(
                request.unit, request.function, request.address, request.count,
                transaction=raw[0] << 8 | raw[1],
            )  # fmt: skip
        if match(asked, raw) not in (Match.REPLY, Match.REFUSAL):
            continue
        evidence = (Evidence("frame", "no frame", raw.hex(" ")),)
        if tcp:
            return Finding(
                "rtu_over_tcp",
                "a transparent converter: what came is an RTU frame with a good CRC",
                "use RTU framing over TCP",
                evidence,
            )
        return Finding(
            "modbus_tcp",
            "a converter that speaks Modbus TCP: what came has its header",
            "use Modbus TCP",
            evidence,
        )
    return None


def _of_others(
    request: ReadRequest, raws: Sequence[bytes], kinds: Sequence[Match], data: bytes
) -> Finding:
    shown = (Evidence("bytes", data[:32].hex(" "), ""),)
    if data.startswith(request.raw):
        return Finding(
            "echo",
            "the request itself came back, and nothing else",
            "the adapter hears what it sends: say so in the link; the device is silent",
            shown,
        )
    if Match.FOREIGN in kinds:
        raw = raws[kinds.index(Match.FOREIGN)]
        unit = raw[0] if request.transaction is None else raw[6]
        return Finding(
            "wrong_unit",
            f"unit {unit} answers, not {request.unit}",
            f"the device is unit {unit}, or two masters share the line",
            shown,
        )
    if Match.STALE in kinds:
        return Finding(
            "wrong_count",
            "a whole frame came that answers another request: function or count differ",
            "let the line fall silent and ask again; if it stays so, the device gives other counts",
            shown,
        )
    return Finding(
        "noise",
        "bytes came, but no frame",
        "check speed, parity and stop bits; then the wires",
        shown,
    )


# -- registers -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Came:
    """Registers that came, and how the profile takes them."""

    profile: DeviceProfile
    request: ReadRequest
    words: tuple[int, ...]
    ct: Decimal
    pt: Decimal

    def own(self, register: Register, shift: int = 0) -> tuple[int, ...] | None:
        """Its words, taken `shift` addresses further on; None when they did not all come."""
        begin = register.address + shift - self.request.address
        if begin < 0 or begin + register.words > len(self.words):
            return None
        own = self.words[begin : begin + register.words]
        if register.scale_address is None:
            return own
        at = register.scale_address + shift - self.request.address
        return (*own, self.words[at]) if 0 <= at < len(self.words) else None

    def registers(self) -> list[Register]:
        """Those of the map that came whole, by address."""
        function = self.request.function
        held = [
            one
            for one in self.profile.registers.values()
            if one.function == function and self.own(one) is not None
        ]
        return sorted(held, key=lambda one: (one.address, one.point))

    def value(self, register: Register, shift: int = 0, *, primary: bool = False) -> Decimal | None:
        """Its value as it stands, not rounded; None for none, and for a zero: both say nothing
        of how it was read."""
        words = self.own(register, shift)
        if words is None or not any(words[: register.words]):
            return None
        try:
            value = decode(
                replace(register, decimals=None), words, ct=self.ct, pt=self.pt, apply_ratio=primary
            )
        except RemoteProtocolError:
            return None
        return value if isinstance(value, Decimal) else None


_Way = Callable[[_Came, Register], Decimal | None]


def _plain(came: _Came, register: Register) -> Decimal | None:
    return came.value(register)


def _word_order(came: _Came, register: Register) -> Decimal | None:
    order: WordOrder = "little" if register.word_order == "big" else "big"
    return came.value(replace(register, word_order=order)) if register.words > 1 else None


def _byte_order(came: _Came, register: Register) -> Decimal | None:
    order: WordOrder = "little" if register.byte_order == "big" else "big"
    return came.value(replace(register, byte_order=order))


def _offset(shift: int) -> _Way:
    return lambda came, register: came.value(register, shift)


_ORDER_ADVICE = "turn word_order of the profile round"
_WAYS: tuple[tuple[str, str, str, _Way], ...] = (
    ("word_order", "the low and the high word are the other way round", _ORDER_ADVICE, _word_order),
    ("byte_order", "the two bytes of each word are the other way round",
     "turn byte_order of the profile round", _byte_order),
    ("offset", "what was looked for stands one address before", "take 1 off every address",
     _offset(-1)),
    ("offset", "what was looked for stands one address behind", "add 1 to every address",
     _offset(1)),
)  # fmt: skip


def _of_registers(came: _Came) -> tuple[Finding, ...]:
    if not any(came.words) or all(word == _ALL_ONES for word in came.words):
        what = "zero" if not any(came.words) else "all ones"
        return (
            Finding(
                "nothing_there",
                f"every register is {what}: that is filler, not a measurement",
                "another profile, or a device that is not fed",
            ),
        )
    telling = [one for one in came.registers() if one.point in TELLING]
    read = {one.point: _plain(came, one) for one in telling}
    wrong = [one for one in telling if not is_plausible(one.point, read[one.point])]
    empty = [one for one in telling if read[one.point] is None]
    found: list[Finding] = []
    if empty and not wrong and len(empty) < len(telling):  # a phase that is not there, or not so
        found += _other_ways(came, telling, telling, read, enough=all)
    if wrong:
        found += _other_ways(came, telling, wrong, read, enough=any) or _scales(wrong, read)
        if not found:
            evidence = tuple(Evidence(one.point, _text(read[one.point]), "") for one in wrong)
            message = "values that no grid has, and no simple reason for it"
            found.append(Finding("implausible", message, "another profile", evidence))
    found += _signs(came)
    return tuple(found if found and (wrong or empty) else found + _ratios(came))


def _other_ways(
    came: _Came,
    telling: Sequence[Register],
    needed: Sequence[Register],
    read: Mapping[str, Decimal | None],
    *,
    enough: Callable[[Iterable[bool]], bool],
) -> list[Finding]:
    """Ways of reading under which all that can be looked at is plausible; the fullest first.

    `needed`: what must be among that, any of it or all.
    """
    found: list[tuple[int, Finding]] = []
    for code, message, advice, way in _WAYS:
        values = {one.point: way(came, one) for one in telling}
        known = {point: value for point, value in values.items() if value is not None}
        if not known or not all(is_plausible(point, value) for point, value in known.items()):
            continue
        if not enough(one.point in known for one in needed):
            continue
        evidence = tuple(
            Evidence(point, _text(read[point]), _text(value)) for point, value in known.items()
        )
        found.append((len(known), Finding(code, message, advice, evidence)))
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])]


def _scales(wrong: Sequence[Register], read: Mapping[str, Decimal | None]) -> list[Finding]:
    """A power of ten that makes every wrong value of a kind plausible."""
    found = []
    for kind in sorted({one.point.rpartition("voltage")[1] or one.point for one in wrong}):
        values = {
            one.point: value
            for one in wrong
            if kind in one.point and (value := read[one.point]) is not None
        }
        factor = next(
            (
                factor
                for factor in _SCALES
                if values and all(is_plausible(p, value * factor) for p, value in values.items())
            ),
            None,
        )
        if factor is not None:
            evidence = tuple(
                Evidence(point, _text(value), _text(value * factor))
                for point, value in values.items()
            )
            found.append(
                Finding(
                    "scale",
                    f"{kind} is off by a power of ten",
                    f"multiply the scale of {', '.join(values)} with {factor:f}",
                    evidence,
                )
            )
    return found


def _signs(came: _Came) -> list[Finding]:
    """Unsigned registers that hold what a small negative number looks like."""
    evidence = []
    for one in came.registers():
        words = came.own(one)
        if not one.type.startswith("uint") or "power" not in one.point or words is None:
            continue
        signed = decode(replace(one, type=one.type[1:]), words, apply_ratio=False)
        read = decode(one, words, apply_ratio=False)
        if not isinstance(signed, Decimal) or not isinstance(read, Decimal) or signed >= 0:
            continue
        if -signed * 1000 < read:
            evidence.append(Evidence(one.point, _text(read), _text(signed)))
    if not evidence:
        return []
    advice = "make the type signed (int instead of uint)"
    return [
        Finding("sign", "negative numbers are read as very large ones", advice, tuple(evidence))
    ]


def _ratios(came: _Came) -> list[Finding]:
    """The device's own ratios against those configured, and power against voltage times current."""
    words = {one.point: came.own(one) for one in came.registers()}
    known = {point: own for point, own in words.items() if own is not None}
    found = []
    check = ratio_check(came.profile, known, came.ct, came.pt)
    if isinstance(check, Mismatch):
        evidence = tuple(
            Evidence(one.point, f"{one.configured:f}", _text(one.told)) for one in check.differences
        )
        advice = "set ct and pt of the meter to what stands on the transformers"
        found.append(Finding("ratio", str(check), advice, evidence))
    values = {one.point: came.value(one, primary=True) for one in came.registers()}
    times = power_factor_found(values)
    if times is not None:
        found.append(
            Finding(
                "ct_ratio",
                f"power is {times:.3g} times what voltages and currents give: a transformer's "
                "ratio is missing, or applied twice",
                "compare ct and pt of the meter, and the side of the profile, with the display",
                (
                    Evidence(
                        "active_power_total", _text(values["active_power_total"]), f"/ {times:.3g}"
                    ),
                ),
            )
        )
    return found


def _text(value: Decimal | None) -> str:
    if value is None:
        return "no value"
    return f"{value:f}" if -10 <= value.adjusted() <= 12 else f"{value:.4g}"
