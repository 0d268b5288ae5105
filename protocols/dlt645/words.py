"""The sentences of `explain`, in English and Chinese."""

import re

from protocols.dlt645.functions import SPEED_OF_WORD

_WORDS: dict[str, tuple[str, str]] = {
    "start": ("start of the frame", "帧起始符"),
    "start2": ("second start byte", "第二个帧起始符"),
    "length": ("{n} data bytes", "数据域长度 {n} 字节"),
    "length_unusual": (
        "{n} data bytes, more than the 200 of the standard",
        "数据域长度 {n} 字节, 超过标准规定的 200",
    ),
    "checksum": ("sum of all bytes before it, modulo 256", "校验码: 前面所有字节之和 模 256"),
    "end": ("end of the frame", "结束符"),
    "rest": ("behind the end by the length byte", "按长度字节已超出帧尾"),
    "request": ("request", "主站请求"),
    "reply": ("reply", "从站正常应答"),
    "refusal": ("refusal", "从站异常应答"),
    "more_follows": ("more follows", "有后续帧"),
    "no_frame": ("no frame in these bytes", "这些字节不是一帧"),
    "incomplete": ("begins like a frame and ends at once", "像帧头, 但立即结束"),
    "incomplete_frame": (
        "the frame is cut off: {got} of {needed} bytes",
        "帧不完整: 应有 {needed} 字节, 只有 {got} 字节",
    ),
    "bad_checksum": (
        "the checksum is {got}, the bytes give {expected}",
        "校验码是 {got}, 按字节计算应为 {expected}",
    ),
    "bad_end": ("the end byte is {got}, not {expected}", "结束符是 {got}, 应为 {expected}"),
    "bad_length": (
        "with a length byte of {expected} instead of {got} checksum and end byte fit",
        "若长度字节为 {expected} 而不是 {got}, 校验码与结束符都符合",
    ),
    "short_data": ("the payload is too short: {detail}", "数据长度不足: {detail}"),
    "long_data": ("the payload is too long: {detail}", "数据长度过长: {detail}"),
    "not_bcd": ("not a decimal number: {detail}", "不是 BCD 码: {detail}"),
    "not_ascii": ("not a text: {detail}", "不是 ASCII 文本: {detail}"),
    "bad_date": ("no such date: {detail}", "日期无效: {detail}"),
    "bad_time": ("no such time: {detail}", "时间无效: {detail}"),
    "no_payload": ("the reply carries no payload", "应答中没有数据"),
    "bad_record": ("no load record: {detail}", "不是负荷记录: {detail}"),
    "record_head": ("load record {nth}, of {time}", "第{nth}条负荷记录, 时间 {time}"),
    "record_empty": ("no class of values", "无数据类"),
    "record_end": ("sum and end of the record", "记录校验和与结束码"),
    "record_bad": ("load record {nth}: the meter calls it bad", "第{nth}条负荷记录: 电表标为无效"),
    "record_checksum": (
        "load record {nth}: its sum does not fit, some meters count it otherwise",
        "第{nth}条负荷记录: 累加校验不符, 部分厂家算法不同",
    ),
    "record_no_time": ("load record {nth}: no such time", "第{nth}条负荷记录: 时间无效"),
    "record_not_bcd": (
        "load record {nth}: a class with digits that are none",
        "第{nth}条负荷记录: 含非 BCD 码的数据类",
    ),
    "record_year_first": ("its time is stored year first", "时间按年在前存储"),
    "record_no_separators": ("without AA for empty classes", "省略空数据类的 AA 分隔符"),
    "part_of_item": (
        "part of a longer item, which gives values only as a whole",
        "数据的一部分, 全部接收后才能解析",
    ),
    "bit_set": ("bit {bit}, which has no name here, is set", "第{bit}位 (未定义) 为 1"),
    "all_events": ("all events", "所有事件"),
    "no_result": ("no result", "无执行结果"),
    "relay_closed": ("relay closed", "已合闸"),
    "closing_permitted": ("closing permitted", "合闸允许"),
    "relay_opened": ("relay opened", "已跳闸"),
    "opening_delayed": ("opening delayed", "延时跳闸"),
    "opened_for_a_time": ("opened, closes again by itself", "跳闸自动恢复"),
    "opening_delayed_by_load": ("opening delayed, the current is high", "大电流延时跳闸"),
    "protected_supply_on": ("protected supply", "保电"),
    "protected_supply_off": ("end of the protected supply", "保电解除"),
    "alarm_on": ("alarm", "报警"),
    "alarm_off": ("end of the alarm", "报警解除"),
    "repeated_top_up": ("top-up repeated", "重复充值"),
    "esam_verification": ("verification by the ESAM failed", "ESAM 验证失败"),
    "identity_authentication": ("identity authentication failed", "身份认证失败"),
    "customer_number": ("customer number is another", "客户编号不匹配"),
    "top_up_count": ("count of top-ups is wrong", "充值次数错误"),
    "hoarding_limit": ("more than may be hoarded", "购电超囤积"),
    "address_range": ("address out of range", "地址超范围"),
    "remote_account_closed": ("remote account closed", "远程已销户"),
    "password_setting": ("setting of a password failed", "密码设置错误"),
    "meter_suspended": ("meter suspended", "电表挂起"),
    "mac": ("MAC wrong", "MAC 校验错"),
    "authentication_expired": ("authentication expired", "身份认证超时"),
    "command_expired": ("command expired", "命令有效时间无效"),
    "protected_supply": ("protected supply: not opened", "保电状态, 拒绝跳闸"),
    "recovery_protected_supply": (
        "protected supply: not opened for a time",
        "保电状态, 拒绝跳闸自动恢复",
    ),
    "recovery_time": ("recovery time wrong", "自动恢复时间无效"),
    "already_open": ("already open", "已处于跳闸状态"),
    "no_reason": ("no reason", "无原因"),
    "not_decoded": ("payload, not decoded", "数据, 不解析"),
    "no_value": ("no value (all FF or an empty slot)", "无数据 (全 FF 或空记录)"),
    "not_shown": ("not shown", "不显示"),
    "unknown_identifier": ("unknown identifier", "未知数据标识"),
    "identifier_cut": ("identifier, cut off", "数据标识不完整"),
    "unverified": ("layout not verified", "格式未经核实"),
    "other": ("other error", "其他错误"),
    "no_data": ("no such data", "无请求数据"),
    "password": ("password wrong or not authorised", "密码错或未授权"),
    "speed": ("speed cannot be changed", "通信速率不能更改"),
    "year_zones": ("too many year zones", "年时区数超"),
    "day_slots": ("too many day slots", "日时段数超"),
    "tariffs": ("too many tariffs", "费率数超"),
    "reserved": ("reserved bit", "保留位"),
    "illegal_data": ("illegal data", "非法数据"),
    "level": ("password level", "密码级别"),
    "old_level": ("level of the old password", "原密码级别"),
    "new_level": ("level of the new password", "新密码级别"),
    "old_password": ("old password", "原密码"),
    "new_password": ("new password", "新密码"),
    "operator": ("operator code", "操作者代码"),
    "security_data": ("security data", "安全数据"),
    "payload": ("payload", "数据"),
    "extra": ("bytes more than this function has", "多余的字节"),
    "weekday_wrong": ("the date is another day", "与日期不符"),
    "weekday_bad": ("weekday {n}", "星期 {n}"),
    "weekday_0": ("Sunday", "星期日"),
    "weekday_1": ("Monday", "星期一"),
    "weekday_2": ("Tuesday", "星期二"),
    "weekday_3": ("Wednesday", "星期三"),
    "weekday_4": ("Thursday", "星期四"),
    "weekday_5": ("Friday", "星期五"),
    "weekday_6": ("Saturday", "星期六"),
    "address": ("meter address {text}", "通信地址 {text}"),
    "address_wildcard": ("any meter (wildcard)", "任意电表 (通配地址)"),
    "address_short": ("any meter whose address ends like this: {text}", "缩位地址 {text}"),
    "address_broadcast": ("all meters (broadcast)", "所有电表 (广播地址)"),
    "address_hex": ("{text}: not decimal digits", "{text}: 不是 BCD 码"),
    "meter_address": ("meter address {text}", "通信地址 {text}"),
    "clock": ("clock to be set: {time}", "校时: {time}"),
    "count": ("{text} records", "记录块数 {text}"),
    "from_time": ("from {time} on", "起始时间 {time}"),
    "sequence": ("frame number {number}", "帧序号 {number}"),
    "freeze_time": ("freeze at {text} (month, day, hour, minute)", "冻结时间 {text} (月日时分)"),
    "freeze_hourly": ("freeze every hour, at minute {mm}", "每小时第{mm}分冻结"),
    "freeze_daily": ("freeze every day at {hh}:{mm}", "每日{hh}:{mm}冻结"),
    "freeze_monthly": ("freeze every month, on day {dd} at {hh}:{mm}", "每月{dd}日{hh}:{mm}冻结"),
    "freeze_now": ("freeze now", "瞬时冻结"),
    "clear_time": ("{text} (month, day, hour, minute)", "{text} (月日时分)"),
    "speed_word": ("{speed} bit/s", "{speed} bit/s"),
    "speed_bad": ("{text}: no single speed", "{text}: 速率特征字无效"),
    "command": ("command {text}", "控制命令 {text}"),
    "command_1A": ("open the relay", "跳闸"),
    "command_1B": ("permit closing", "合闸允许"),
    "command_1C": ("close the relay", "直接合闸"),
    "command_1D": ("open, with automatic closing", "跳闸自动恢复"),
    "command_1E": ("open, with automatic closing", "跳闸自动恢复"),
    "command_2A": ("alarm", "报警"),
    "command_2B": ("end of the alarm", "报警解除"),
    "command_3A": ("protected supply", "保电"),
    "command_3B": ("end of the protected supply", "保电解除"),
    "spare": ("spare, or recovery time", "备用或恢复时间"),
    "valid_until": ("the command is valid until {time}", "命令有效截止时间 {time}"),
    "output": ("output {text}", "端子输出 {text}"),
    "output_00": ("second pulse of the clock", "时钟秒脉冲"),
    "output_01": ("demand period", "需量周期"),
    "output_02": ("tariff switch", "时段投切"),
    "result": ("result {text}", "执行结果 {text}"),
}


def say(key: str, lang: str, **facts: object) -> str:
    """A sentence; a key that has none is shown as words."""
    pair = _WORDS.get(key)
    if pair is None:
        return key.replace("_", " ")
    return pair[lang == "zh"].format(**facts)


def piece_meaning(name: str, text: str, lang: str) -> str:
    """What a piece of a frame says; `text` is its bytes in hex, high byte first, 33H taken off."""
    key = name
    if name == "address":
        key = _address_key(text)
    elif name == "speed":
        speed = SPEED_OF_WORD.get(int(text, 16))
        return say("speed_bad" if speed is None else "speed_word", lang, text=text, speed=speed)
    elif name == "freeze_time" and text.startswith("99") and len(text) == 8:
        return _freeze(text, lang)
    elif name in ("command", "output") and f"{name}_{text}" in _WORDS:
        key = f"{name}_{text}"
    number = int(text, 16) if text else 0
    return say(key, lang, text=text, number=number, time=_time_text(text))


def _freeze(text: str, lang: str) -> str:
    """What repeats a freeze: 99 in the place of a part means every one of it."""
    dd, hh, mm = text[2:4], text[4:6], text[6:8]
    if text == "99999999":
        return say("freeze_now", lang)
    if dd == "99":
        return say("freeze_hourly" if hh == "99" else "freeze_daily", lang, hh=hh, mm=mm)
    return say("freeze_monthly", lang, dd=dd, hh=hh, mm=mm)


def _address_key(text: str) -> str:
    if text == "A" * 12:
        return "address_wildcard"
    if text == "9" * 12:
        return "address_broadcast"
    if text.isdigit():
        return "address"
    return "address_short" if re.fullmatch(r"(AA)+[0-9]+", text) else "address_hex"


def _time_text(text: str) -> str:
    """`170605102251` -> `17-06-05 10:22:51`, as far as there are digits for it."""
    pairs = re.findall("..", text)
    return "-".join(pairs[:3]) + " " + ":".join(pairs[3:]) if len(pairs) > 3 else text
