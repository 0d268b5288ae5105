"""When two reads of one item confirm each other. Pure.

Where the link cannot see parity, a damaged reply can pass all other checks with a plausible wrong
value. What goes to a bill is then believed only when a second read agrees.
"""

from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal

from protocols.dlt645.formats import Value

# Stands in for a connection whose phases and fuse are not known: three phases of 150 A.
CAPACITY_KW_DEFAULT = Decimal(100)

READS_MAX = 4

_MS_PER_HOUR = Decimal(3_600_000)


def most_between(capacity_kw: Decimal, elapsed_ms: int, count: Decimal) -> Decimal:
    """What a register can count up in a time, rounded up to whole counts (`count`: 0.01)."""
    energy = capacity_kw * max(elapsed_ms, 0) / _MS_PER_HOUR
    return (energy / count).to_integral_value(ROUND_CEILING) * count


def confirms(
    first: Sequence[Value],
    second: Sequence[Value],
    *,
    counts_up: bool,
    capacity_kw: Decimal,
    elapsed_ms: int,
) -> bool:
    """Whether the second read may stand.

    Live registers (`counts_up`): 0 <= delta <= capacity x time, rounded up to one count. All else
    (frozen values, maxima, times, null) must be equal.
    """
    if len(first) != len(second):
        return False
    for one, two in zip(first, second, strict=True):
        if one == two:
            continue
        if not (counts_up and isinstance(one, Decimal) and isinstance(two, Decimal)):
            return False
        count = Decimal(1).scaleb(int(two.as_tuple().exponent))
        if not 0 <= two - one <= most_between(capacity_kw, elapsed_ms, count):
            return False
    return True
