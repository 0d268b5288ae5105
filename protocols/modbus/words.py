"""The sentences of `explain`, in English and Chinese."""

_WORDS: dict[str, tuple[str, str]] = {
    "unit": ("unit {n}", "从站地址 {n}"),
    "unit_broadcast": ("unit 0: broadcast, nobody answers", "从站地址 0: 广播, 无应答"),
    "unit_itself": ("unit {n}: the device itself", "从站地址 {n}: 设备本身"),
    "unit_reserved": ("unit {n} (reserved)", "从站地址 {n} (保留)"),
    "transaction": ("transaction {n}", "事务标识 {n}"),
    "protocol": ("protocol 0: Modbus", "协议标识 0: Modbus"),
    "protocol_bad": ("protocol {text}, not Modbus", "协议标识 {text}, 不是 Modbus"),
    "length": ("{n} bytes follow", "后续 {n} 字节"),
    "request": ("request", "请求"),
    "reply": ("reply", "应答"),
    "refusal": ("refusal", "异常应答"),
    "function_unknown": ("function {n}", "功能码 {n}"),
    "address": ("from register {n} on", "起始寄存器 {n}"),
    "address_one": ("register {n}", "寄存器 {n}"),
    "count": ("{n} registers", "{n} 个寄存器"),
    "count_one": ("1 register", "1 个寄存器"),
    "count_bits": ("{n} bits", "{n} 位"),
    "byte_count": ("{n} data bytes", "{n} 个数据字节"),
    "value": ("value {n}", "值 {n}"),
    "register": ("register {n}: {value}", "寄存器 {n}: {value}"),
    "register_nth": ("register no. {n}: {value}", "第 {n} 个寄存器: {value}"),
    "data": ("data", "数据"),
    "exception": ("exception {n}: {what}", "异常码 {n}: {what}"),
    "crc": ("CRC of all bytes before it, low byte first", "CRC 校验, 低字节在前"),
    "rest": ("behind the end of the frame", "超出帧尾"),
    "no_value": ("no value", "无数据"),
    "secondary": ("secondary side, not multiplied by {ratio}", "二次侧数值, 未乘 {ratio}"),
    "no_frame": ("no frame in these bytes", "这些字节不是一帧"),
    "incomplete": (
        "the frame is cut off: {got} of {needed} bytes",
        "帧不完整: 应有 {needed} 字节, 只有 {got} 字节",
    ),
    "bad_crc": (
        "the CRC is {got}, the bytes give {expected} (as sent, low byte first)",
        "CRC 是 {got}, 按字节计算应为 {expected} (低字节在前)",
    ),
    "crc_order": (
        "the two bytes of the CRC are swapped: the low one comes first",
        "CRC 两个字节颠倒: 应低字节在前",
    ),
    "bad_protocol": (
        "the protocol is {got}, not {expected}",
        "协议标识是 {got}, 应为 {expected}",
    ),
    "bad_length": (
        "a frame cannot have the length {got}: {expected}",
        "长度不可能是 {got}: 应为 {expected}",
    ),
    "bad_byte_count": (
        "the byte count is {got}, the frame has room for {expected}",
        "字节数是 {got}, 而帧中数据为 {expected} 字节",
    ),
    "odd_byte_count": (
        "registers are two bytes each: {got} is no byte count of them",
        "每个寄存器两字节, 字节数不可能是 {got}",
    ),
    "bad_count": (
        "one request reads {expected} registers, not {got}",
        "一次请求读 {expected} 个寄存器, 不是 {got}",
    ),
    "bad_range": (
        "the registers end behind 65535",
        "寄存器地址超出 65535",
    ),
    "not_the_reply": (
        "this does not answer the request given: {what}",
        "这不是对所给请求的应答: {what}",
    ),
    "not_ascii": ("not a text: {detail}", "不是 ASCII 文本: {detail}"),
    "echo": ("it is the request itself", "就是请求本身"),
    "foreign": ("it is of another unit", "来自其他从站"),
    "stale": (
        "it answers another request (transaction, function or count differ)",
        "它应答的是另一个请求 (事务标识, 功能码或数量不同)",
    ),
    "unsolicited": ("it is another request", "它是另一个请求"),
    "wrong_count": ("the number of registers differs", "寄存器数量不符"),
    "illegal_function": ("illegal function: the device does not have it", "非法功能: 设备不支持"),
    "illegal_data_address": (
        "illegal data address: the device lacks one of these registers",
        "非法数据地址: 设备没有其中某个寄存器",
    ),
    "illegal_data_value": (
        "illegal data value: too many registers, or a count it does not take",
        "非法数据值: 寄存器过多, 或数量不被接受",
    ),
    "device_failure": ("device failure", "从站设备故障"),
    "acknowledge": ("acknowledged, takes time", "确认, 需较长时间处理"),
    "busy": ("busy: ask again later", "从站设备忙, 请稍后再试"),
    "memory_parity": ("memory parity error", "存储奇偶校验错"),
    "gateway_path_unavailable": (
        "gateway path unavailable: the gateway is not set up for this unit",
        "网关路径不可用: 网关未配置该从站",
    ),
    "gateway_target_silent": (
        "the device behind the gateway does not answer",
        "网关后的目标设备无应答",
    ),
    "unknown_exception": ("unknown exception", "未知异常码"),
}

_FUNCTIONS: dict[int, tuple[str, str]] = {
    0x01: ("read coils", "读线圈"),
    0x02: ("read discrete inputs", "读离散输入"),
    0x03: ("read holding registers", "读保持寄存器"),
    0x04: ("read input registers", "读输入寄存器"),
    0x05: ("write one coil", "写单个线圈"),
    0x06: ("write one register", "写单个寄存器"),
    0x07: ("read exception status", "读异常状态"),
    0x08: ("diagnostics", "诊断"),
    0x0F: ("write coils", "写多个线圈"),
    0x10: ("write registers", "写多个寄存器"),
    0x11: ("report device id", "报告设备标识"),
    0x16: ("mask one register", "屏蔽写寄存器"),
    0x17: ("read and write registers", "读写多个寄存器"),
    0x2B: ("read device identification", "读设备识别码"),
}


def say(key: str, lang: str, **facts: object) -> str:
    """A sentence in English, or in Chinese for `zh`."""
    return _WORDS[key][lang == "zh"].format(**facts)


def function_name(function: int, lang: str) -> str:
    """What a function code does; the bit of a refusal is ignored."""
    pair = _FUNCTIONS.get(function & 0x7F)
    return say("function_unknown", lang, n=function & 0x7F) if pair is None else pair[lang == "zh"]


def is_known(function: int) -> bool:
    """Whether the specification has this function."""
    return function & 0x7F in _FUNCTIONS
