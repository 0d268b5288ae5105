"""One attempt as a machine without I/O: bytes and the time go in, an outcome comes out.

The rules of believing a reply are here: an exact copy of the request that leads is an echo, only a
whole good frame that matches is an answer, and a frame that began and stopped is given up.
"""

from collections.abc import Sequence

from headend.bus.request import BusRequest
from headend.domain.exchange import Outcome
from protocols.framing import Event, FrameFound, Framer, Match

# A frame in progress may run past the time-out only while it is no longer than what was asked for;
# this much more is granted for wake-up and filler bytes that a delimiter may count in.
_SLACK_BYTES = 8

_BROKEN = frozenset({"checksum", "end", "parity", "overflow"})


class Attempt:
    """Times are seconds of the caller's monotonic clock.

    It ends with a reply, a refusal, or what a gateway says in the place of a device it does not
    reach; every other whole frame is stray and counted.

    `ends_at`: when the reply has to be complete. `idle_s`: a pause of this length inside a frame
    ends it. `idle_ends`: such a pause is believed before `ends_at` too (a medium whose bytes come
    at wire speed; packets of a network may well pause).

    The echo rule drops an exact copy of the request in front of everything else. A protocol in
    which the good reply is a copy of the request cannot be told from an echo this way; no read is.
    """

    __slots__ = (
        "_comparing",
        "_echo",
        "_framer",
        "_idle_ends",
        "_reasons",
        "_request",
        "_same",
        "_stray_max",
        "ends_at",
        "idle_s",
        "kinds",
        "last_byte_at",
        "line_quiet",
        "noise",
        "outcome",
        "reply",
        "stray",
        "stray_count",
    )

    def __init__(
        self,
        request: BusRequest,
        *,
        ends_at: float,
        idle_s: float,
        idle_ends: bool,
        stray_before: bytes = b"",
        stray_max: int = 512,
    ) -> None:
        self._request = request
        self._framer = Framer(request.delimiter)
        self.idle_s = idle_s
        self._idle_ends = idle_ends
        self._stray_max = stray_max
        self._comparing = True
        self._same = 0  # bytes held back: so many of the request have come back
        self._echo = False
        self._reasons: set[str] = set()
        self.ends_at = ends_at
        self.last_byte_at: float | None = None
        self.outcome: Outcome | None = None
        self.reply: bytes | None = None
        self.stray = bytearray(stray_before)
        self.stray_count = 0
        self.kinds: list[Match] = []  # of whole good frames that are no answer to it
        self.noise: list[str] = []  # why each piece that was no good frame is none
        self.line_quiet = False  # it ended by a pause of idle_s: the line is known to be quiet

    @property
    def pending(self) -> int:
        """Bytes that may still become an echo or a frame."""
        return self._same + self._framer.pending

    def feed(self, data: bytes, bad: Sequence[int], now: float) -> bool:
        """Take bytes that came; True when the attempt has ended with an answer."""
        self.last_byte_at = now
        if self._comparing:
            self._compare(data, bad)
        else:
            self._take(self._framer.feed(data, bad))
        if self.outcome is None:
            return False
        self._flush()
        return True

    def check_at(self) -> float:
        """When `check` has something to decide, as far as is known now."""
        if self._idle_ends and self.last_byte_at is not None and self.pending:
            return min(self.ends_at, self.last_byte_at + self.idle_s)
        return self.ends_at

    def check(self, now: float) -> float | None:
        """The time has come to look: None when the attempt has ended, else when to look again."""
        last, pending = self.last_byte_at, self.pending
        quiet_at = None if last is None or not pending else last + self.idle_s
        if quiet_at is not None and now >= quiet_at and (self._idle_ends or now >= self.ends_at):
            # A lone byte is a glitch of the line's turning round, and the reply may be yet to come.
            began = self._framer.pending > 1
            self._flush()
            if self.outcome is None and not began and now < self.ends_at:
                return self.ends_at
            self.line_quiet = began
            self._give_up()
            return None
        if now < self.ends_at:
            return self.check_at()
        if quiet_at is not None and pending <= self._request.reply_bytes + _SLACK_BYTES:
            # Bytes of the reply are still coming, each within Tb of the last. The line would have
            # to be quiet for that long anyway before the next request.
            return quiet_at
        self._give_up()
        return None

    def abort(self, outcome: Outcome) -> None:
        """End it from outside: the port is gone, or the bus is stopped."""
        self._flush()
        self.outcome = outcome
        self.reply = None

    def _compare(self, data: bytes, bad: Sequence[int]) -> None:
        """Hold bytes back as long as they are a beginning of our own request."""
        payload, same = self._request.payload, self._same
        left = len(payload) - same
        if data[:left] == payload[same : same + len(data)] and (not bad or min(bad) >= left):
            if len(data) < left:
                self._same = same + len(data)
                return
            self._echoed()
            self._keep(payload, count=False)  # every exchange on such an adapter has one
            data, bad = data[left:], [index - left for index in bad]
            same = 0
        self._comparing = False
        self._same = 0
        if same:  # no echo: what was held back comes first
            data, bad = payload[:same] + data, [index + same for index in bad]
        if data:
            self._take(self._framer.feed(data, bad))

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if not isinstance(event, FrameFound):
                self._reasons.add(event.reason)
                self.noise.append(event.reason)
                self._keep(event.raw)
            elif self.outcome is not None:
                self._keep(event.raw)
            else:
                self._judge(event.raw)

    def _judge(self, raw: bytes) -> None:
        match = self._request.match(raw)
        if match is Match.REPLY:
            self.reply, self.outcome = raw, Outcome.REPLY
        elif match is Match.REFUSAL:
            self.reply, self.outcome = raw, Outcome.REFUSED
        elif match is Match.UNREACHED:
            self.reply, self.outcome = raw, Outcome.UNREACHED
        else:
            self._keep(raw)
            if match is Match.ECHO:
                self._echoed()
            else:
                self.kinds.append(match)

    def _echoed(self) -> None:
        self._echo = True
        self.kinds.append(Match.ECHO)

    def _keep(self, raw: bytes, *, count: bool = True) -> None:
        self.stray_count += len(raw) if count else 0
        self.stray += raw[: max(0, self._stray_max - len(self.stray))]

    def _flush(self) -> None:
        """Nothing more is waited for: what is held back is judged or becomes stray."""
        if self._comparing:
            self._comparing = False
            held, self._same = self._request.payload[: self._same], 0
            self._take(self._framer.feed(held))
        if self._framer.pending:
            self._take(self._framer.idle())

    def _give_up(self) -> None:
        self._flush()
        if self.outcome is None:
            self.outcome = self._diagnose()

    def _diagnose(self) -> Outcome:
        """Why there is no answer, the most telling cause first."""
        if self._reasons & _BROKEN:
            return Outcome.DAMAGED
        if "incomplete" in self._reasons:
            return Outcome.INCOMPLETE
        if any(kind is not Match.ECHO for kind in self.kinds):
            return Outcome.FOREIGN
        if self._reasons:
            return Outcome.DAMAGED
        return Outcome.ECHO_ONLY if self._echo else Outcome.SILENCE
