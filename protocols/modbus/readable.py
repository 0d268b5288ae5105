"""Which registers one request may reach across, by what the map, the device's rules and the device
itself have told.

A request begins and ends with registers that somebody wants. In between may lie what others want,
what is known to exist, and, where the device fills up, a few that it does not define.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from protocols.modbus.learned import Learned
from protocols.modbus.register import DeviceProfile, Register

Range = tuple[int, int]


class Readable:
    """For each function, runs of addresses; a request must lie within one run."""

    def __init__(self, runs: Mapping[int, tuple[Range, ...]]) -> None:
        self._runs = runs
        self._starts = {function: [run[0] for run in own] for function, own in runs.items()}

    @classmethod
    def of(
        cls,
        profile: DeviceProfile,
        others: Iterable[Register] = (),
        learned: Learned | None = None,
    ) -> "Readable":
        """What a device of this kind lets be read. `others`: raw registers beside its map."""
        told = learned or Learned()
        defined: dict[int, set[int]] = {}
        for one in (*profile.registers.values(), *others):
            words = defined.setdefault(one.function, set())
            words.update(range(one.address, one.end))
            if one.scale_address is not None:
                words.add(one.scale_address)
        for span in (*profile.spans, *told.readable):
            words = defined.setdefault(span.function, set())
            words.update(range(span.address, span.address + span.count))
        return cls(
            {
                function: _runs(
                    words,
                    absent=told.absent_words(function),
                    breaks={*profile.breaks, *told.cuts(function)},
                    hole_max=profile.hole_max if profile.gaps == "ok" else 0,
                )
                for function, words in defined.items()
            }
        )

    def allows(self, function: int, first: int, behind: int) -> bool:
        """Whether a request may go from `first` to before `behind`, be it of any length."""
        index = bisect_right(self._starts.get(function, []), first) - 1
        return index >= 0 and behind <= self._runs[function][index][1]


def _runs(
    words: set[int], *, absent: set[int], breaks: set[int], hole_max: int
) -> tuple[Range, ...]:
    runs: list[Range] = []
    for at in sorted(words - absent):
        if runs:
            start, end = runs[-1]
            hole = range(end, at)
            if (
                len(hole) <= hole_max
                and absent.isdisjoint(hole)
                and not any(end <= cut <= at for cut in breaks)
            ):
                runs[-1] = (start, at + 1)
                continue
        runs.append((at, at + 1))
    return tuple(runs)
