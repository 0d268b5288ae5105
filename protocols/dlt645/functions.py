"""The control codes of DL/T 645, both editions: their names and how DATA is cut up.

Used to explain frames; nothing here builds or sends one. A code's low five bits are the function,
D7 says the meter speaks, D6 that it refuses, D5 that more follows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Edition = Literal["dlt645-2007", "dlt645-1997"]


@dataclass(frozen=True, slots=True)
class Cut:
    """A piece of DATA. `size` None = all that is left for it; `secret` bytes are never shown."""

    name: str
    size: int | None
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Function:
    """One function of an edition.

    `requests`: how requests of some lengths are cut otherwise.
    """

    en: str
    zh: str
    request: tuple[Cut, ...] = ()
    reply: tuple[Cut, ...] = ()
    refusal: tuple[Cut, ...] = (Cut("error", 1),)
    requests: Mapping[int, tuple[Cut, ...]] = field(default_factory=dict)


_DI4, _DI2 = Cut("identifier", 4), Cut("identifier", 2)
_PASSWORD = (Cut("level", 1), Cut("password", 3, secret=True))
_OPERATOR = Cut("operator", 4, secret=True)
_PASSWORD_CHANGE = (
    Cut("old_level", 1),
    Cut("old_password", 3, secret=True),
    Cut("new_level", 1),
    Cut("new_password", 3, secret=True),
)
_CLOCK = (Cut("clock", 6),)
_ADDRESS = (Cut("meter_address", 6),)
_SPEED = (Cut("speed", 1),)
_VALUE = Cut("payload", None)

FUNCTIONS_2007: dict[int, Function] = {
    0x03: Function(
        "security authentication",
        "安全认证",
        (_DI4, _OPERATOR, Cut("security_data", None, secret=True)),
        (_DI4, Cut("security_data", None, secret=True)),
        (Cut("error", 2),),
    ),
    0x08: Function("broadcast clock", "广播校时", _CLOCK),
    0x11: Function(
        "read data", "读数据", (_DI4, Cut("count", 1), Cut("from_time", 5)), (_DI4, _VALUE)
    ),
    0x12: Function(
        "read follow-up data",
        "读后续数据",
        (_DI4, Cut("sequence", 1)),
        (_DI4, _VALUE, Cut("sequence", 1)),
        requests={
            6: (_DI4, Cut("count", 1), Cut("sequence", 1)),
            11: (_DI4, Cut("count", 1), Cut("from_time", 5), Cut("sequence", 1)),
        },
    ),
    0x13: Function("read address", "读通信地址", (), _ADDRESS),
    0x14: Function("write data", "写数据", (_DI4, *_PASSWORD, _OPERATOR, _VALUE)),
    0x15: Function("write address", "写通信地址", _ADDRESS),
    0x16: Function("freeze", "冻结命令", (Cut("freeze_time", 4),)),
    0x17: Function("change speed", "更改通信速率", _SPEED, _SPEED),
    0x18: Function("change password", "修改密码", (_DI4, *_PASSWORD_CHANGE), _PASSWORD),
    0x19: Function("clear demand", "最大需量清零", (*_PASSWORD, _OPERATOR)),
    0x1A: Function("clear meter", "电表清零", (*_PASSWORD, _OPERATOR)),
    0x1B: Function("clear events", "事件清零", (*_PASSWORD, _OPERATOR, _DI4)),
    0x1C: Function(
        "relay control",
        "跳合闸、报警、保电",
        (*_PASSWORD, _OPERATOR, Cut("command", 1), Cut("spare", 1), Cut("valid_until", 6)),
        (Cut("result", None),),
        (Cut("error", None),),
    ),
    0x1D: Function(
        "output of terminal", "多功能端子输出", (Cut("output", 1),), (Cut("output", 1),)
    ),
}

FUNCTIONS_1997: dict[int, Function] = {
    0x01: Function("read data", "读数据", (_DI2,), (_DI2, _VALUE)),
    0x02: Function("read follow-up data", "读后续数据", (_DI2,), (_DI2, _VALUE)),
    0x03: Function("read again", "重读数据", (), (_DI2, _VALUE)),
    0x04: Function("write data", "写数据", (_DI2, *_PASSWORD, _VALUE)),
    0x08: Function("broadcast clock", "广播校时", _CLOCK),
    0x0A: Function("write address", "写设备地址", _ADDRESS),
    0x0C: Function("change speed", "更改通信速率", _SPEED, _SPEED),
    0x0F: Function("change password", "修改密码", _PASSWORD_CHANGE, _PASSWORD),
    0x10: Function("clear demand", "最大需量清零", (Cut("clear_time", 4),)),
}

_VENDOR = Function(
    "vendor command", "厂家自定义", (Cut("payload", None, secret=True),), (Cut("payload", None),)
)


# The word of a speed, in 17H and in 04000701 to 04000705: exactly one bit.
SPEED_OF_WORD = {0x02: 600, 0x04: 1200, 0x08: 2400, 0x10: 4800, 0x20: 9600, 0x40: 19200}


def edition_of(control: int) -> Edition:
    """The edition a control code belongs to; 03 and 08, which both have, count as 2007."""
    function = control & 0x1F
    if function in FUNCTIONS_1997 and function not in FUNCTIONS_2007:
        return "dlt645-1997"
    return "dlt645-2007"


def function_of(control: int, edition: Edition) -> Function:
    """The function of a control code; codes that no edition names are a vendor's."""
    table = FUNCTIONS_2007 if edition == "dlt645-2007" else FUNCTIONS_1997
    return table.get(control & 0x1F, _VENDOR)


def cut(control: int, data: bytes, edition: Edition) -> list[tuple[Cut, bytes]]:
    """DATA in its pieces, in order; every byte is in exactly one. Empty pieces are left out.

    Bytes that are left over are a piece `extra`: secret when secrets can stand in such a frame.
    """
    function = function_of(control, edition)
    if control & 0x80 == 0:
        plan = function.requests.get(len(data), function.request)
    else:
        plan = function.refusal if control & 0x40 else function.reply
    pieces: list[tuple[Cut, bytes]] = []
    at = 0
    for index, piece in enumerate(plan):
        behind = sum(later.size or 0 for later in plan[index + 1 :])
        size = max(len(data) - at - behind, 0) if piece.size is None else piece.size
        taken = data[at : at + size]
        at += len(taken)
        if taken:
            secret = piece.secret or _writes_password(piece, pieces)
            pieces.append((Cut(piece.name, piece.size, secret), taken))
    if at < len(data):
        pieces.append((Cut("extra", None, any(piece.secret for piece in plan)), data[at:]))
    return pieces


def _writes_password(piece: Cut, before: list[tuple[Cut, bytes]]) -> bool:
    """The payload of a write to the identifiers 04000Cxx is a password too."""
    return (
        piece.name == "payload" and bool(before) and before[0][1][:0:-1] == bytes.fromhex("04000C")
    )
