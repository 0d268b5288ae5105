"""Dead-meter accounting: a silent device is asked ever less often, and costs a bounded share.

Bound. Until it is recognised a device costs `dead_after` requests. From then on all dead devices of
a bus together get at most `dead_share` of the line's time plus the burst CREDIT_MAX_S and one
probe: a probe needs credit, credit grows with the time by that share, and each probe is paid with
the time it took including the silence after it. Probes that a person asks for are never held up;
they are paid for all the same, so that the automatic ones wait the longer.

Within the share the dead are equal: after a silent probe a device waits for its back-off, or for as
long as one probe of every dead device would need, whichever is longer.
"""

from dataclasses import dataclass

from headend.bus.settings import BusSettings
from headend.bus.statistics import DeviceStatistics
from headend.domain.exchange import Outcome

CREDIT_MAX_S = 3.0  # what an idle time may save up: about two probes
DEBT_MAX_S = 60.0  # what on-demand probes may run up
DEVICES_MAX = 4096  # names that are remembered; the longest unused living one is forgotten first

_SILENT = frozenset({Outcome.SILENCE, Outcome.ECHO_ONLY, Outcome.FOREIGN, Outcome.UNREACHED})
_ANSWERED = frozenset({Outcome.REPLY, Outcome.REFUSED})


@dataclass(slots=True)
class _Device:
    attempts: int = 0
    answers: int = 0
    failed_in_row: int = 0
    silent_since: float = 0.0
    backoff_s: float = 0.0  # 0.0: alive
    probe_s: float = 0.0  # what its last probe took of the line's time
    next_probe: float = 0.0


class DeviceBook:
    """Who answers and who does not. Times are seconds of a monotonic clock, handed in."""

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self._devices: dict[str, _Device] = {}
        self._credit_s = 0.0
        self._credit_at: float | None = None
        self._last_answer_at = float("-inf")
        self._attempted_at = float("-inf")
        self.dead_s = 0.0

    def change(self, settings: BusSettings, now: float) -> None:
        """Go on by other settings; what is known of the devices stays."""
        self._settings = settings
        for known in self._devices.values():
            known.backoff_s = min(known.backoff_s, settings.probe_max_s)
            known.next_probe = min(known.next_probe, now + settings.probe_max_s)

    def is_dead(self, device: str) -> bool:
        """It counts as dead: one attempt only, and that not often."""
        known = self._devices.get(device)
        return known is not None and known.backoff_s > 0

    def is_doubtful(self, device: str) -> bool:
        """Its last request brought nothing but silence."""
        known = self._devices.get(device)
        return known is not None and known.failed_in_row > 0

    def may_probe(self, device: str, now: float) -> bool:
        """A living device always; a dead one when its back-off is over and there is credit.

        Where all are dead nobody is kept waiting, and one is asked every `line_probe_s`.
        """
        known = self._devices.get(device)
        if known is None or known.backoff_s <= 0:
            return True
        if now >= known.next_probe and self._credit(now) > 0:
            return True
        line_probe_s = self._settings.line_probe_s
        return (
            line_probe_s > 0
            and now - self._attempted_at >= line_probe_s
            and all(one.backoff_s > 0 for one in self._devices.values())
        )

    def wait_s(self, device: str, now: float) -> float:
        """Seconds until the back-off of a dead device is over; 0.0 for a living one."""
        known = self._devices.get(device)
        return max(0.0, known.next_probe - now) if known is not None else 0.0

    def attempted(self, device: str, outcome: Outcome, now: float, line_s: float) -> None:
        """One attempt ended and took `line_s` of the line's time."""
        known = self._get(device)
        known.attempts += 1
        self._attempted_at = now
        credit_s = self._credit(now)
        if known.backoff_s > 0:
            self.dead_s += line_s
            known.probe_s = line_s
            self._credit_s = max(-DEBT_MAX_S, credit_s - line_s)
        if outcome not in _ANSWERED:
            return
        known.answers += 1
        if known.backoff_s > 0 and known.silent_since > self._last_answer_at:
            self._line_is_back()
        known.failed_in_row = 0
        known.backoff_s = 0.0
        self._last_answer_at = now

    def failed(self, device: str, outcomes: frozenset[Outcome], now: float) -> None:
        """A request ended without an answer. Only silence counts: damage is a sign of life.

        What a gateway says for a device it does not reach is that device's silence.
        """
        if not outcomes <= _SILENT:
            return
        known = self._get(device)
        if not known.failed_in_row:
            known.silent_since = now
        known.failed_in_row += 1
        settings = self._settings
        turn_s = 0.0
        if known.backoff_s > 0:
            known.backoff_s = min(known.backoff_s * 2, settings.probe_max_s)
            dead = sum(d.backoff_s > 0 for d in self._devices.values())
            turn_s = known.probe_s * dead / settings.dead_share
        elif known.failed_in_row >= settings.dead_after:
            known.backoff_s = settings.probe_first_s
        known.next_probe = now + max(known.backoff_s, turn_s)

    def statistics(self, now: float) -> dict[str, DeviceStatistics]:
        """What is known of each device."""
        return {
            name: DeviceStatistics(
                d.attempts,
                d.answers,
                d.failed_in_row,
                d.backoff_s > 0,
                max(0.0, d.next_probe - now) if d.backoff_s > 0 else 0.0,
            )
            for name, d in self._devices.items()
        }

    def _line_is_back(self) -> None:
        """A dead device answers and nobody has answered since it fell silent: it was the line.

        All that fell silent with it get one more chance at once.
        """
        for known in self._devices.values():
            if known.backoff_s > 0 and known.silent_since > self._last_answer_at:
                known.backoff_s = 0.0
                known.failed_in_row = max(0, self._settings.dead_after - 1)

    def _credit(self, now: float) -> float:
        if self._credit_at is not None:
            earned = (now - self._credit_at) * self._settings.dead_share
            self._credit_s = min(CREDIT_MAX_S, self._credit_s + earned)
        self._credit_at = now
        return self._credit_s

    def _get(self, device: str) -> _Device:
        known = self._devices.pop(device, None)
        if known is None:
            known = _Device()
            if len(self._devices) >= DEVICES_MAX:
                alive = (name for name, d in self._devices.items() if d.backoff_s <= 0)
                del self._devices[next(alive, next(iter(self._devices)))]
        self._devices[device] = known  # at the end: the order is that of last use
        return known
