"""`headend modbus diagnose`: reads a device and says what is wrong with line or profile."""

import argparse
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from headend.cli.main import EXIT_NO_ANSWER, EXIT_NOT_GOOD, EXIT_OK, EXIT_REFUSED
from headend.cli.modbus import over_link
from headend.cli.output import clean, colour, language, print_json, say, table
from headend.config.profiles import SUNSPEC, load_device, load_profile, profile_names
from headend.domain.errors import ConfigError
from headend.drivers.modbus_commission import (
    Diagnosis,
    Probe,
    diagnose_device,
    find_models,
    unit_of,
)
from protocols.errors import LocalProtocolError
from protocols.modbus.commissioning import Finding
from protocols.modbus.profile import DeviceProfile
from protocols.modbus.sunspec import any_sunspec, sunspec_profile

SCHEMA = "modbus_diagnose/1"
SHOWN_MAX = 60
BEYOND_DOUBT = 2  # so many plausible values are no chance

_WORDS = {
    "en": {
        "good": "nothing is wrong: what came is what a grid gives",
        "fits": "profiles that fit what came: ", "fits_none": "no profile fits what came",
        "point": "point", "value": "value", "unit": "unit", "read": "read", "found": "would be",
        "advice": "-> ", "models": "SunSpec models: ",
    },
    "zh": {
        "good": "未发现问题：读到的数值符合电网常态",
        "fits": "与读数相符的点表：", "fits_none": "没有与读数相符的点表",
        "point": "点", "value": "数值", "unit": "单位", "read": "读得", "found": "应为",
        "advice": "-> ", "models": "SunSpec 模型：",
    },
}  # fmt: skip

# What each finding is called, and what to do, in Chinese; the English words come with it.
_ZH: dict[str, tuple[str, str]] = {
    "silent": (
        "没有任何应答",
        "检查设备地址、波特率和校验位以及两根接线；走 TCP 时改试另一种帧格式",
    ),
    "rtu_over_tcp": (
        "透明转换器：收到的是 CRC 正确的 RTU 帧",
        "改用 TCP 上的 RTU 帧格式（tcp://）",
    ),
    "modbus_tcp": (
        "转换器使用 Modbus TCP：收到的帧带有其报文头",
        "改用 Modbus TCP（modbus-tcp://）",
    ),
    "echo": ("只收到自己发出的请求", "适配器会回送所发数据：在链路中注明 echo；设备本身没有应答"),
    "wrong_unit": ("应答的是另一个单元地址", "改正单元地址，或检查线路上是否有两个主站"),
    "wrong_count": (
        "收到完整的帧，但应答的是另一个请求或寄存器数量不符",
        "等线路静默后重试；仍如此则减少每次读取的寄存器数",
    ),
    "refused": ("设备拒绝了请求", "检查功能码、寄存器地址（是否差一）和每次读取的数量"),
    "noise": ("收到字节，但没有一个完整的帧", "检查波特率、校验位和停止位，再检查接线"),
    "nothing_there": ("所有寄存器都是填充值，不是测量值", "换一个点表，或检查设备是否接入电源"),
    "word_order": ("高低字的顺序相反", "将点表的 word_order 反过来"),
    "byte_order": ("每个字的两个字节顺序相反", "将点表的 byte_order 反过来"),
    "offset": ("寄存器地址差一", "将所有地址加一或减一（见下面的数值）"),
    "scale": ("数值相差十的幂次", "修改点表中的 scale"),
    "sign": ("负数被读成了很大的正数", "把类型改为有符号数（int 而不是 uint）"),
    "ratio": ("设备内的变比与所给的不一致", "按互感器铭牌设置电表的 ct 和 pt"),
    "ct_ratio": (
        "功率与电压、电流不符：缺少互感器变比，或乘了两次",
        "对照显示屏核对 ct、pt 以及点表的 side",
    ),
    "implausible": ("数值不可能来自电网，且没有简单的原因", "换一个点表"),
    "no_sunspec": ("找不到 SunSpec 标记：不是 SunSpec 设备", "换一个点表"),
}  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """0: nothing is wrong; 1: findings; 3: no answer; 4: no port; 5: refused, and nothing else."""
    ct, pt = _ratio("--ct", args.ct), _ratio("--pt", args.pt)
    profile = None if args.profile is None else load_device(args.profile, Path())
    if profile is not None and profile.side == "primary" and (ct != 1 or pt != 1):
        message = f"{profile.id} gives primary values: ct and pt are applied already"
        raise ConfigError(message, hint="leave --ct and --pt out")
    quiet_s = 0.1 if profile is None else profile.turnaround_ms / 1000

    async def work(probe: Probe) -> int:
        if profile is None:
            told, fits = await _try_all(probe, ct, pt)
        else:
            told, fits = await _one(probe, profile, ct, pt), None
        _show(told, fits, args)
        return _code(told, fits)

    return over_link(args, work, quiet_s=quiet_s)


async def _one(probe: Probe, profile: DeviceProfile, ct: Decimal, pt: Decimal) -> Diagnosis:
    if profile is not any_sunspec():
        return await diagnose_device(probe, profile, ct=ct, pt=pt)
    chain = await find_models(probe)
    none = Finding(
        "no_sunspec",
        "there is no 'SunS' where it may stand: no SunSpec device",
        "another profile",
    )
    if chain is None:
        return Diagnosis(findings=[none])
    try:
        own = sunspec_profile(chain)
    except LocalProtocolError as error:
        return Diagnosis(findings=[Finding("no_sunspec", str(error), "another profile")])
    return await diagnose_device(probe, own)


async def _try_all(probe: Probe, ct: Decimal, pt: Decimal) -> tuple[Diagnosis, list[str]]:
    """Every profile there is; what the line itself does wrong ends it."""
    best: Diagnosis | None = None
    fits: list[str] = []
    for name in (*profile_names(Path()), SUNSPEC):
        say(f"{name} ...")
        if name == SUNSPEC:
            told = await _one(probe, any_sunspec(), Decimal(1), Decimal(1))
        else:
            profile = load_profile(name, Path())
            primary = profile.side == "primary"
            told = await diagnose_device(
                probe, profile, ct=Decimal(1) if primary else ct, pt=Decimal(1) if primary else pt
            )
        if told.no_frame or told.tells_nothing:
            return told, []
        if not told.findings and told.plausible >= BEYOND_DOUBT:
            fits.append(name)
            if best is None or best.findings or told.plausible > best.plausible:
                best = told
        elif best is None:
            best = told
    assert best is not None
    return (best if fits else Diagnosis(best.answers)), fits


def _code(told: Diagnosis, fits: list[str] | None) -> int:
    codes = {one.code for one in told.findings}
    if codes == {"silent"}:
        return EXIT_NO_ANSWER
    if codes == {"refused"}:
        return EXIT_REFUSED
    return EXIT_NOT_GOOD if codes or fits == [] else EXIT_OK


def _show(told: Diagnosis, fits: list[str] | None, args: argparse.Namespace) -> None:
    if args.json:
        print_json(_json(told, fits, args))
        return
    lang = language(args.lang)
    words = _WORDS[lang]
    rows = [
        (point, "-" if value is None else clean(str(value)), _unit(point))
        for point, value in told.values.items()
    ]
    if rows:
        print(table((words["point"], words["value"], words["unit"]), rows, right=frozenset({1})))
        print()
    if fits is not None and not told.findings:
        print(words["fits"] + ", ".join(fits) if fits else words["fits_none"])
    elif not told.findings:
        print(words["good"])
    for one in told.findings:
        _print_finding(one, lang)


def _print_finding(one: Finding, lang: str) -> None:
    words = _WORDS[lang]
    message, advice = one.message, one.advice
    if lang == "zh" and one.code in _ZH:
        message, advice = _ZH[one.code]
    print(f"{colour('!', 'red')} {one.code}: {clean(message)}")
    print(f"  {words['advice']}{clean(advice)}")
    if lang == "zh" and one.code in _ZH:
        print(f"  ({clean(one.message)})")
    if one.evidence:
        head = (words["point"], words["read"], words["found"])
        rows = [(clean(e.point), _short(e.read), _short(e.found)) for e in one.evidence]
        text = table(head, rows)
        print("\n".join(f"    {line}" for line in text.splitlines()))


def _short(text: str) -> str:
    return clean(text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 4] + " ...")


def _json(told: Diagnosis, fits: list[str] | None, args: argparse.Namespace) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "unit": args.unit,
        "protocol": args.protocol,
        "profile": args.profile,
        "reads": [
            {
                "function": one.request.function,
                "address": one.request.address,
                "count": one.request.count,
                "bytes": one.data.hex().upper(),
                "exception": one.code,
            }
            for one in told.answers
        ],
        "values": [
            {"point": p, "value": None if v is None else _text(v), "unit": _unit(p)}
            for p, v in told.values.items()
        ],
        "findings": [_finding_json(one) for one in told.findings],
        "fits": fits,
    }


def _finding_json(one: Finding) -> dict[str, Any]:
    return {
        "code": one.code,
        "message": one.message,
        "advice": one.advice,
        "evidence": [{"point": e.point, "read": e.read, "found": e.found} for e in one.evidence],
    }


def _text(value: Decimal | str) -> str:
    return format(value, "f") if isinstance(value, Decimal) else value


def _unit(point: str) -> str:
    return unit_of(point)


def _ratio(option: str, text: str | None) -> Decimal:
    if text is None:
        return Decimal(1)
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal(0)
    if not value.is_finite() or value <= 0:
        raise ConfigError(f"{option} {text} is no ratio", hint="a number above 0, such as 40")
    return value


def finding_codes() -> Sequence[str]:
    """The findings that have words in Chinese."""
    return tuple(_ZH)
