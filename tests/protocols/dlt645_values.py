"""Strategies for the values of items."""

import datetime as dt
from decimal import Decimal
from random import Random

from hypothesis import strategies as st

from protocols.dlt645.formats import Field, MeterTime, OperatorCode, Value

PAIR_MAX = {"YY": 99, "MM": 12, "DD": 31, "hh": 24, "mm": 59, "NN": 99}
PATTERN_TEXT = {
    "MMDDhhmm": "{0}-{1} {2}:{3}",
    "MMDDNN": "{0}-{1} {2}",
    "hhmmNN": "{0}:{1} {2}",
    "YYMMDDNN": "{0}-{1}-{2} {3}",
    "DDhh": "{0} {1}",
}


def pattern_texts(field: Field) -> st.SearchStrategy[str]:
    """Texts of a time that is not whole; one of all zeros is an empty slot."""
    letters = [field.pattern[at : at + 2] for at in range(0, len(field.pattern), 2)]
    pairs = st.tuples(*(st.integers(0, PAIR_MAX[one]) | st.just(99) for one in letters)).filter(any)
    return pairs.map(lambda p: PATTERN_TEXT[field.pattern].format(*(f"{n:02d}" for n in p)))


def values_of(field: Field) -> st.SearchStrategy[Value]:
    """Every value a field can hold."""
    known: st.SearchStrategy[Value]
    if field.kind == "number":
        top = 10 ** (2 * field.width) if not field.signed else 8 * 10 ** (2 * field.width - 1)
        least = -top + 1 if field.signed else 0
        known = st.integers(least, top - 1).map(lambda n: Decimal(n).scaleb(-field.scale))
    elif field.kind == "digits":
        known = st.from_regex(rf"[0-9]{{{2 * field.width}}}", fullmatch=True)
    elif field.kind == "text":
        known = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=field.width)
    elif field.kind == "operator":
        return st.binary(min_size=4, max_size=4).map(lambda b: OperatorCode(b.hex().upper()))
    elif field.kind == "pattern":
        known = pattern_texts(field)
    elif field.kind == "bits":
        return st.binary(min_size=field.width, max_size=field.width).map(lambda b: b.hex().upper())
    else:
        days = st.dates(dt.date(2000, 1, 1), dt.date(2099, 12, 31))
        times = st.times().map(lambda t: t.replace(microsecond=0))
        if field.kind == "stamp" and field.width <= 5:
            times = times.map(lambda t: t.replace(second=0))
        if field.kind == "stamp" and field.width == 4:
            times = times.map(lambda t: t.replace(minute=0))
        stamps = st.builds(MeterTime, days, times)
        known = {"date": days, "time": times, "stamp": stamps}[field.kind]
    return st.none() | known


def random_value(field: Field, random: Random) -> Value:
    """One value a field can hold; as `values_of`, cheap enough for every row of the catalogue."""
    if random.random() < 0.1 and field.kind not in ("bits", "operator"):
        return None
    if field.kind == "number":
        top = 10 ** (2 * field.width) if not field.signed else 8 * 10 ** (2 * field.width - 1)
        number = random.randrange(-top + 1 if field.signed else 0, top)
        return Decimal(number).scaleb(-field.scale)
    if field.kind in ("bits", "operator"):
        text = random.randbytes(field.width).hex().upper()
        return OperatorCode(text) if field.kind == "operator" else text
    if field.kind == "digits":
        return "".join(random.choice("0123456789") for _ in range(2 * field.width))
    if field.kind == "text":
        return "".join(chr(random.randrange(0x21, 0x7F)) for _ in range(random.randint(1, 4)))
    if field.kind == "pattern":
        letters = [field.pattern[at : at + 2] for at in range(0, len(field.pattern), 2)]
        pairs = [random.choice((99, random.randint(1, PAIR_MAX[one]))) for one in letters]
        return PATTERN_TEXT[field.pattern].format(*(f"{n:02d}" for n in pairs))
    day = dt.date(2000, 1, 1) + dt.timedelta(days=random.randrange(36_000))
    second = random.randrange(60) if field.kind == "time" or field.width > 5 else 0
    minute = random.randrange(60) if field.kind == "time" or field.width > 4 else 0
    time = dt.time(random.randrange(24), minute, second)
    return {"date": day, "time": time, "stamp": MeterTime(day, time)}[field.kind]
