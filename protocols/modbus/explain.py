"""Modbus frames in words: what is in them, byte by byte, and why a bad one is bad.

The objects are of the shape `frame/1` (`docs/schemas/frame.schema.json`). Which registers a reply
holds stands in its request only: values come of one that was given, or that stands before the reply
in the same bytes.
"""

from typing import Any

from protocols.checksum import crc16
from protocols.errors import BadContent, RemoteProtocolError
from protocols.framing import Match
from protocols.modbus.adu import PDU_BYTES_MAX, TCP_HEAD_BYTES
from protocols.modbus.decode import decode
from protocols.modbus.delimiter import COUNT_MAX, REQUEST_BYTES
from protocols.modbus.device import parse_request, refused_by_protocol
from protocols.modbus.master import (
    EXCEPTIONS,
    UNKNOWN_EXCEPTION,
    ReadRequest,
    match,
    reply_registers,
)
from protocols.modbus.register import DeviceProfile, Register
from protocols.modbus.segments import READS, Segment, is_tcp, rtu_sizes, segments
from protocols.modbus.words import function_name, say
from protocols.quantities import quantity

SCHEMA = "frame/1"
CRC_BYTES = 2

Explained = dict[str, Any]


def explain(
    data: bytes,
    *,
    lang: str = "en",
    tcp: bool | None = None,
    profile: DeviceProfile | None = None,
    request: bytes | None = None,
) -> list[Explained]:
    """One object for each frame in `data`, good or broken, and for each part that is no frame.

    `lang` is `en` or `zh`; `tcp` None finds out. `request`: the bytes of the read request that the
    replies answer (of either framing). Values of the secondary side are not multiplied.
    """
    net = is_tcp(data) if tcp is None else tcp
    given = None if request is None else _as_request(request, tcp=net)
    context = given
    objects: list[Explained] = []
    for one in segments(data, tcp=net):
        if not one.head:
            objects.append(_no_frame(one, lang))
            continue
        made = _Frame(one, lang, tcp=net, profile=profile)
        objects.append(made.explain(context, must_match=given is not None))
        if given is None and one.good:
            seen = parse_request(one.raw, tcp=net)
            context = seen if seen is not None and refused_by_protocol(seen) is None else context
    return objects


def _as_request(raw: bytes, *, tcp: bool) -> ReadRequest | None:
    """A request of either framing, made one of the framing of the replies."""
    found = parse_request(raw, tcp=tcp)
    if found is not None:
        return found
    other = parse_request(raw, tcp=not tcp)
    if other is None or refused_by_protocol(other) is not None:
        return None
    return ReadRequest(other.unit, other.function, other.address, other.count, None, raw)


def is_request(raw: bytes) -> bool:
    """Whether bytes are a read request, in either framing."""
    return any(parse_request(raw, tcp=tcp) is not None for tcp in (False, True))


def _no_frame(one: Segment, lang: str) -> Explained:
    error = _error("frame", "no_frame", say("no_frame", lang), offset=0)
    return {**_empty(one), "errors": [error]}


def _empty(one: Segment) -> Explained:
    return {
        "schema": SCHEMA,
        "protocol": None,
        "valid": False,
        "errors": [],
        "offset": one.offset,
        "before": "",
        "hex": one.raw.hex().upper(),
        "address": None,
        "direction": None,
        "function": None,
        "identifier": None,
        "parts": [],
        "values": [],
    }


def _error(
    layer: str,
    code: str,
    message: str,
    *,
    offset: int | None,
    expected: object = None,
    got: object = None,
) -> Explained:
    return {
        "layer": layer,
        "code": code,
        "offset": offset,
        "expected": None if expected is None else str(expected),
        "got": None if got is None else str(got),
        "message": message,
    }


class _Frame:
    """One frame on its way into words."""

    def __init__(
        self, one: Segment, lang: str, *, tcp: bool, profile: DeviceProfile | None
    ) -> None:
        self._raw = one.raw
        self._lang = lang
        self._tcp = tcp
        self._profile = profile
        self._made = _empty(one) | {"protocol": "modbus-tcp" if tcp else "modbus-rtu"}
        self._cut_reply = False  # a reply that is cut off can look like a request
        self._pdu_at = TCP_HEAD_BYTES if tcp else 1

    def explain(self, request: ReadRequest | None, *, must_match: bool) -> Explained:
        """The whole object."""
        raw, made = self._raw, self._made
        end = self._frame_end()
        made["valid"] = not made["errors"]
        made["address"] = str(raw[self._pdu_at - 1]) if len(raw) >= self._pdu_at else None
        self._head_parts()
        if len(raw) > self._pdu_at:
            self._pdu_parts(end, request, must_match=must_match)
        last = made["parts"][-1]
        self._part(last["offset"] + len(last["raw"]) // 2, end, "rest", self._say("rest"))
        if not self._tcp:
            self._part(end, end + CRC_BYTES, "crc", self._say("crc"))
            end += CRC_BYTES
        self._part(end, len(raw), "rest", self._say("rest"))
        return made

    def _say(self, key: str, **facts: object) -> str:
        return say(key, self._lang, **facts)

    def _part(self, begin: int, end: int, name: str, meaning: str) -> None:
        piece = self._raw[begin:end]
        if piece:
            self._made["parts"].append(
                {"offset": begin, "raw": piece.hex().upper(), "name": name, "meaning": meaning}
            )

    def _wrong(
        self,
        code: str,
        key: str,
        at: int | None,
        expected: object = None,
        got: object = None,
        *,
        layer: str = "frame",
        **facts: object,
    ) -> None:
        message = self._say(key, expected=expected, got=got, **facts)
        self._made["errors"].append(
            _error(layer, code, message, offset=at, expected=expected, got=got)
        )

    # -- the frame -------------------------------------------------------------------------------

    def _frame_end(self) -> int:
        """Where the PDU ends, in the frame as it claims to be; tells what is wrong with it."""
        return self._tcp_end() if self._tcp else self._rtu_end()

    def _tcp_end(self) -> int:
        raw = self._raw
        if any(raw[2:4]):
            self._wrong("protocol", "bad_protocol", 2, "0000", raw[2:4].hex().upper())
        length = raw[4] << 8 | raw[5]
        if not 2 <= length <= PDU_BYTES_MAX + 1:
            self._wrong("length", "bad_length", 4, f"2-{PDU_BYTES_MAX + 1}", length)
            return len(raw)
        size = length + 6
        if size > len(raw):
            self._cut_off(size)
        return min(size, len(raw))

    def _cut_off(self, size: int) -> None:
        held = len(self._raw)
        self._wrong("incomplete", "incomplete", held, size, held, needed=size)

    def _rtu_end(self) -> int:
        raw = self._raw
        size = self._rtu_size()
        if size > len(raw):
            self._cut_off(size)
            self._cut_reply = raw[1] in READS and size != REQUEST_BYTES
            return len(raw)
        end = size - CRC_BYTES
        got, expected = raw[end:size], crc16(raw[:end]).to_bytes(2, "little")
        if got != expected:
            texts = (expected.hex().upper(), got.hex().upper())
            self._wrong("checksum", "bad_crc", end, *texts)
            if got == expected[::-1]:
                self._wrong("crc_order", "crc_order", end, *texts)
        return end

    def _rtu_size(self) -> int:
        """The good size; of a broken frame the one that fits its bytes best."""
        raw = self._raw
        sizes = rtu_sizes(raw)
        whole = [s for s in sizes if s <= len(raw)]
        for size in (*whole, len(raw)):
            if size > CRC_BYTES and raw[size - 2 : size] == crc16(raw[: size - 2]).to_bytes(
                2, "little"
            ):
                return size
        looks_whole = raw[1] in (0x03, 0x04) and len(raw) % 2 and len(raw) > REQUEST_BYTES
        if len(raw) in sizes or (looks_whole and max(sizes) < len(raw)):
            return len(raw)  # a reply of registers by its size, whatever its byte count says
        return max(whole, default=max(sizes, default=len(raw)))

    def _head_parts(self) -> None:
        raw = self._raw
        if self._tcp:
            self._part(0, 2, "transaction", self._say("transaction", n=raw[0] << 8 | raw[1]))
            key = "protocol_bad" if any(raw[2:4]) else "protocol"
            self._part(2, 4, "protocol", self._say(key, text=raw[2:4].hex().upper()))
            self._part(4, 6, "length", self._say("length", n=raw[4] << 8 | raw[5]))
        unit = raw[self._pdu_at - 1]
        key = "unit"
        if unit == 0 or (unit == 0xFF and self._tcp):
            key = "unit_itself" if self._tcp else "unit_broadcast"
        elif unit > 247:
            key = "unit_reserved"
        self._part(self._pdu_at - 1, self._pdu_at, "unit", self._say(key, n=unit))

    # -- the PDU ---------------------------------------------------------------------------------

    def _pdu_parts(self, end: int, request: ReadRequest | None, *, must_match: bool) -> None:
        at, raw, made = self._pdu_at, self._raw, self._made
        function, size = raw[at], end - at
        made["function"] = f"{function:02X}"
        kind = "reply" if self._cut_reply else _direction(raw[at:end])
        made["direction"] = "reply" if kind == "refusal" else kind
        name = function_name(function, self._lang)
        self._part(at, at + 1, "function", f"{name}, {self._say(kind)}" if kind else name)
        if kind in ("reply", "refusal") and must_match and made["valid"]:
            request = self._matching(request)
        if kind == "refusal":
            self._refusal(at + 1)
        elif kind == "reply" and function in READS:
            self._reply(at + 1, end, function, request)
        elif size >= 5 and (function in READS or function in (0x05, 0x06, 0x0F, 0x10)):
            self._places(at + 1, end, function, kind)
        else:
            self._part(at + 1, end, "data", self._say("data"))

    def _matching(self, request: ReadRequest | None) -> ReadRequest | None:
        """The request when this frame answers it; tells when it does not."""
        if request is None:
            return None
        if request.transaction is None and self._tcp:  # a request of the other framing
            answers = (request.unit, request.function) == (
                self._raw[self._pdu_at - 1],
                self._raw[self._pdu_at] & 0x7F,
            )
            kind = Match.REPLY if answers else Match.STALE
        else:
            kind = match(request, self._raw)
        if kind in (Match.REPLY, Match.REFUSAL):
            return request
        self._wrong(
            "not_the_reply", "not_the_reply", None, layer="content", what=self._say(kind.value)
        )
        return None

    def _refusal(self, at: int) -> None:
        code = self._raw[at]
        name = EXCEPTIONS.get(code, UNKNOWN_EXCEPTION)
        self._made["refusal"] = [name]
        self._part(at, at + 1, "exception", self._say("exception", n=code, what=self._say(name)))

    def _places(self, at: int, end: int, function: int, kind: str | None) -> None:
        """Address and count, or address and value, and what is to be written."""
        raw = self._raw
        address, number = (int.from_bytes(raw[p : p + 2]) for p in (at, at + 2))
        self._made["identifier"] = f"{address:04X}"
        single = function in (0x05, 0x06)
        key = "address_one" if single else "address"
        self._part(at, at + 2, "address", self._say(key, n=address))
        if single:
            self._part(at + 2, at + 4, "value", self._say("value", n=number))
            return
        key = "count" if number != 1 else "count_one"
        if function in (0x01, 0x02, 0x0F):
            key = "count_bits"
        self._part(at + 2, at + 4, "count", self._say(key, n=number))
        if function in (0x03, 0x04):
            if not 1 <= number <= COUNT_MAX:
                limits = f"1-{COUNT_MAX}"
                self._wrong("count", "bad_count", at + 2, limits, number, layer="content")
            elif address + number > 0x10000:
                self._wrong("range", "bad_range", at, layer="content")
        if kind == "request" and function not in READS and at + 4 < end:
            self._part(at + 4, at + 5, "byte_count", self._say("byte_count", n=raw[at + 4]))
            self._part(at + 5, end, "data", self._say("data"))

    # -- registers -------------------------------------------------------------------------------

    def _reply(self, at: int, end: int, function: int, request: ReadRequest | None) -> None:
        raw = self._raw
        if at >= end:
            return
        told, held = raw[at], end - at - 1
        self._part(at, at + 1, "byte_count", self._say("byte_count", n=told))
        cut_off = any(error["code"] == "incomplete" for error in self._made["errors"])
        if told != held and not cut_off:
            self._wrong("byte_count", "bad_byte_count", at, held, told, layer="content")
        elif self._made["valid"] and function in (0x03, 0x04) and told % 2:
            self._wrong("byte_count", "odd_byte_count", at, None, told, layer="content")
        if function in (0x01, 0x02) or self._made["errors"]:
            self._part(at + 1, end, "data", self._say("data"))
            return
        words = [int.from_bytes(raw[p : p + 2]) for p in range(at + 1, end, 2)]
        known = self._known(request, function, words)
        if request is not None and known:
            self._made["identifier"] = f"{request.address:04X}"
        self._registers(at + 1, words, request if known else None)

    def _known(self, request: ReadRequest | None, function: int, words: list[int]) -> bool:
        """Whether the request tells which registers these are."""
        if request is None or request.function != function or request.count != len(words):
            return False
        if str(request.unit) != self._made["address"]:
            return False
        if self._tcp and request.transaction is not None:
            try:
                reply_registers(request, self._raw)
            except RemoteProtocolError:
                return False
        return True

    def _registers(self, at: int, words: list[int], request: ReadRequest | None) -> None:
        """Parts and values, by the profile where it knows the register, else word by word."""
        index = 0
        while index < len(words):
            address = None if request is None else request.address + index
            register = self._register_at(request, address, len(words))
            place = at + 2 * index
            if request is not None and register is not None:
                own = words[index : index + register.words]
                if register.scale_address is not None:
                    own.append(words[register.scale_address - request.address])
                self._value(register, own, place)
                index += register.words
                continue
            word = words[index]
            if request is None or address is None:
                meaning = self._say("register_nth", n=index + 1, value=word)
            else:
                meaning = self._say("register", n=address, value=word)
                if self._profile is None:
                    self._add_value(f"reg:{request.function}:{address}:1", str(word), "")
            self._part(place, place + 2, "register", meaning)
            index += 1

    def _register_at(
        self, request: ReadRequest | None, address: int | None, count: int
    ) -> Register | None:
        """The register at an address, when all that its value is made of came with it."""
        if self._profile is None or request is None:
            return None
        came = range(request.address, request.address + count)
        return next(
            (
                one
                for one in self._profile.registers.values()
                if (one.function, one.address) == (request.function, address)
                and one.first >= came.start
                and one.behind <= came.stop
            ),
            None,
        )

    def _value(self, register: Register, words: list[int], at: int) -> None:
        end = at + 2 * register.words
        try:
            value = decode(register, words, apply_ratio=False)
        except BadContent as error:
            self._wrong("not_ascii", "not_ascii", at, layer="content", detail=error)
            self._part(at, end, register.point, self._say("not_ascii", detail=error))
            return
        unit = quantity(register.point).unit
        text = None if value is None else value if isinstance(value, str) else format(value, "f")
        meaning = self._say("no_value") if text is None else f"{text} {unit}".rstrip()
        if register.ratio is not None:
            meaning += f" ({self._say('secondary', ratio=register.ratio.upper())})"
        self._part(at, end, register.point, meaning)
        self._add_value(register.point, text, unit)

    def _add_value(self, point: str, value: str | None, unit: str) -> None:
        self._made["values"].append(
            {"point": point, "value": value, "unit": unit, "time": None, "snapshot": None}
        )


def _direction(pdu: bytes) -> str | None:
    """`request`, `reply`, `refusal`; None where both look alike."""
    function, size = pdu[0], len(pdu)
    if function & 0x80:
        return "refusal" if size >= 2 else None
    if function in READS:
        return "request" if size == 5 and (function > 2 or pdu[1] != 3) else "reply"
    if function in (0x0F, 0x10):
        return "reply" if size == 5 else "request"
    return None
