"""What the watchdog watches in the daemon, and the one line `systemctl status` shows of it.

Buses and pollers have bounds of their own. Nothing here asks whether a meter answers or a port is
there: being told no is a step as good as any other.
"""

from collections.abc import Collection, Mapping, Sequence

from headend.acquisition.poller import Poller
from headend.bus import Bus, BusState
from headend.notify import Steps

# The slowest attempt that the configuration allows is a minute of thinking, a minute of silence
# and the bytes of a slow line; then the next step comes.
BUS_STEP_S_MAX = 180.0
# A poller's step is a whole meter, so every attempt on its bus counts too. What is left is the
# journal, and a disk may hang for minutes without a restart being any help.
POLLER_STEP_S_MAX = 300.0
NAMES_SHOWN_MAX = 5


def watched(buses: Mapping[str, Bus], pollers: Mapping[str, Poller]) -> dict[str, Steps]:
    """Where every bus and every poller is, under the names of their tasks."""
    steps = {}
    for name, bus in buses.items():
        statistics = bus.statistics()
        steps[f"bus:{name}"] = Steps(statistics.steps, BUS_STEP_S_MAX)
        poller = pollers.get(name)
        if poller is not None:
            mark = (poller.counts.steps, statistics.exchanges)
            steps[f"poll:{name}"] = Steps(mark, POLLER_STEP_S_MAX)
    return steps


def status_line(
    headend: str,
    *,
    meters: int,
    buses: Mapping[str, Bus],
    feed_connected: bool | None,
    held_back: Collection[str] = (),
) -> str:
    """How the daemon is, in a line. `feed_connected` None: there is no feed.

    `held_back`: buses that are not polled because their plan does not fit.
    """
    parts = [f"{headend}: {_count(meters, 'meter')} on {_count(len(buses), 'bus', 'buses')}"]
    away = [n for n, b in buses.items() if b.statistics().state in (BusState.GONE, BusState.BUSY)]
    if away:
        parts.append(f"no port: {_names(away)}")
    if held_back:
        parts.append(f"not polled: {_names(sorted(held_back))}")
    if feed_connected is not None:
        parts.append("broker connected" if feed_connected else "broker away")
    return "; ".join(parts)


def _names(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN_MAX
    return ", ".join(names[:NAMES_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
