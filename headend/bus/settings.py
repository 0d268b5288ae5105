"""What can be set on a bus, with the defaults of a 645 line."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BusSettings:
    """All times in milliseconds or seconds as the name says.

    gap_ms: quiet time before every request, from the last byte on the line, ours or theirs.
    inter_byte_ms: Tb (DL/T 645: bytes of one frame are at most 500 ms apart). A longer pause ends a
        frame that has begun.
    silence_after_timeout_ms: after a time-out the line must have been quiet for this long before
        anything is sent, counted from the time-out or the last byte, whichever is later.
    reply_timeout_ms: longest turnaround of a device, from the end of our request to the first
        byte of its reply (Td: 500 ms); margin_ms is added for adapters and clocks.
    char_unknown_s: time of a character assumed for time-outs where the medium's speed is not
        known (a converter without `baud`): that of 1200 Bd.
    quiet_wait_max_ms: a line that never becomes quiet is spoken on all the same after this long.
    queue_max: waiting requests; one more is refused with QueueFull.
    dead_after: failed requests in a row, all silent, after which a device counts as dead.
    probe_first_s, probe_max_s: back-off of its probes, doubled after each silent one.
    dead_share: part of the line's time that probes of dead devices may take together.
    line_probe_s: where every device counts as dead one is probed this often all the same, since it
        costs nobody anything and the line may be back. 0: never sooner than its own back-off.
    reopen_first_s, reopen_max_s: back-off of opening a port that is not there.
    drop_after_silent: attempts in a row, over all devices, after which a port that gave not one
        byte is closed and opened again: for network connections, whose far end may be gone without
        a word. 0: never.
    stray_max: bytes of noise kept for one attempt; the rest is only counted.
    """

    gap_ms: float = 30.0
    inter_byte_ms: float = 500.0
    silence_after_timeout_ms: float = 500.0
    reply_timeout_ms: float = 500.0
    margin_ms: float = 100.0
    char_unknown_s: float = 11 / 1200
    quiet_wait_max_ms: float = 3000.0
    queue_max: int = 256
    dead_after: int = 2
    probe_first_s: float = 1.0
    probe_max_s: float = 600.0
    dead_share: float = 0.05
    line_probe_s: float = 0.0
    reopen_first_s: float = 0.2
    reopen_max_s: float = 10.0
    drop_after_silent: int = 0
    stray_max: int = 512
