"""What it takes to find DL/T 645 frames in a stream, and to make values of them.

    python benchmarks/dlt645.py [--frames 20000] [--runs 7] [--json]

Beside the PyPI package `dlt645`, in the same run, on the same bytes: replies of eight identifiers
from many meters, four FE before each. Both sides do the same:

    framing   start bytes, length, checksum, end byte, 33H taken off; the rest of the stream kept.
              The package takes one frame a call and hands the rest back, so it is given one frame a
              call, and so are we (`framing`); a stream in pieces of 64 bytes is shown beside it.
    decoding  framing, and then the value: address, identifier and control code looked at, the
              catalogue asked, digits checked (ours) and the number made; the package by its own
              client's reply handler.

Ours checks more (that the reply answers the question, that every digit is one, all FF is no value)
and gives exact decimals; the package gives floats. `construct` is the declaration that the reader
is held to by tests, timed here as well. Exit 1 with --strict when the goals are missed: framing at
least 1.5 times as fast, decoding at least as fast.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from statistics import median

# This file has the name of the package beside it.
sys.path[:] = [path for path in sys.path if Path(path) != Path(__file__).parent]

from dlt645.protocol.protocol import DLT645Protocol
from dlt645.service.clientsvc.client_service import MeterClientService

from protocols.dlt645.catalogue import lookup
from protocols.dlt645.declared import decode_declared
from protocols.dlt645.frame import DELIMITER, WAKE_UP, parse
from protocols.dlt645.items import encode
from protocols.dlt645.master import match, read_request, reply_payload
from protocols.dlt645.meter import build_reply
from protocols.framing import FrameFound, Framer, Match

FRAMES_DEFAULT, RUNS_DEFAULT = 20_000, 7
FRAMING_GOAL, DECODING_GOAL = 1.5, 1.0
PIECE_BYTES = 64
VALUES = {
    "00010000": "12345.67",
    "00020000": "0.26",
    "00010100": "123.40",
    "02010100": "229.4",
    "02020100": "1.234",
    "02030000": "0.2831",
    "02060000": "0.998",
    "02800002": "49.98",
}
METERS = 50


def replies() -> list[tuple[str, str, bytes]]:
    """Address, identifier and the bytes of a reply, wake-up bytes included."""
    found = []
    for meter in range(1, METERS + 1):
        address = f"{meter:012d}"
        for di, text in VALUES.items():
            item = lookup(di)
            assert item is not None
            raw = build_reply(address, di, encode(item, Decimal(text)))
            found.append((address, di, 4 * WAKE_UP + raw))
    return found


def timed(works: Mapping[str, Callable[[], int]], runs: int) -> dict[str, list[float]]:
    """Microseconds of processor time a frame, of every run.

    All take turns in each run, so that a machine that is busy for a while is so for everybody.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            started = time.process_time()
            frames = work()
            found[name].append((time.process_time() - started) / frames * 1e6)
    return found


class Work:
    """The same frames for everybody."""

    def __init__(self, frames: int) -> None:
        self.each = replies()
        self.rounds = max(1, frames // len(self.each))
        self.stream = b"".join(raw for _, _, raw in self.each)
        self.requests = {(a, di): read_request(a, di) for a, di, _ in self.each}
        self.layouts = {di: lookup(di).layout.decode for di in VALUES}  # type: ignore[union-attr]
        # Its reply handler needs no connection; it is told whose answer it waits for.
        self.client = MeterClientService.new_tcp_client("127.0.0.1", 1)
        self.wire = [(bytearray.fromhex(a)[::-1], raw) for a, _, raw in self.each]

    @property
    def count(self) -> int:
        """Frames of one run."""
        return self.rounds * len(self.each)

    def framing_ours(self) -> int:
        """One frame a call."""
        framer = Framer(DELIMITER)
        for _ in range(self.rounds):
            for _, _, raw in self.each:
                for found in framer.feed(raw):
                    if isinstance(found, FrameFound):
                        parse(found.raw)
        return self.count

    def framing_theirs(self) -> int:
        """One frame a call."""
        take = DLT645Protocol.deserialize_with_remaining
        rest = b""
        for _ in range(self.rounds):
            for _, _, raw in self.each:
                rest, frame = take(rest + raw)
                assert frame is not None
        return self.count

    def stream_ours(self) -> int:
        """A stream in pieces."""
        framer, frames = Framer(DELIMITER), 0
        for _ in range(self.rounds):
            for at in range(0, len(self.stream), PIECE_BYTES):
                for found in framer.feed(self.stream[at : at + PIECE_BYTES]):
                    if isinstance(found, FrameFound):
                        parse(found.raw)
                        frames += 1
        assert frames == self.count
        return frames

    def stream_theirs(self) -> int:
        """A stream in pieces."""
        take = DLT645Protocol.deserialize_with_remaining
        rest, frames = b"", 0
        for _ in range(self.rounds):
            for at in range(0, len(self.stream), PIECE_BYTES):
                rest, frame = take(rest + self.stream[at : at + PIECE_BYTES])
                while frame is not None:
                    frames += 1
                    rest, frame = take(rest)
        assert frames == self.count
        return frames

    def decoding_ours(self) -> int:
        """As the daemon does it: framing, what the frame is to the request, payload, value."""
        framer = Framer(DELIMITER)
        for _ in range(self.rounds):
            for address, di, raw in self.each:
                request = self.requests[address, di]
                for found in framer.feed(raw):
                    if isinstance(found, FrameFound) and match(request, found.raw) is Match.REPLY:
                        (value,) = self.layouts[di](reply_payload(request, found.raw))
        assert value == Decimal(VALUES[di])
        return self.count

    def decoding_declared(self) -> int:
        """The same, the value by the construct declaration."""
        framer = Framer(DELIMITER)
        items = {di: lookup(di) for di in VALUES}
        for _ in range(self.rounds):
            for address, di, raw in self.each:
                request = self.requests[address, di]
                for found in framer.feed(raw):
                    if isinstance(found, FrameFound) and match(request, found.raw) is Match.REPLY:
                        decode_declared(items[di], reply_payload(request, found.raw))  # type: ignore[arg-type]
        return self.count

    def decoding_theirs(self) -> int:
        """As its client does it once the bytes are there."""
        take = DLT645Protocol.deserialize_with_remaining
        handle = self.client.handle_response
        rest = b""
        for _ in range(self.rounds):
            for address, raw in self.wire:
                self.client.address = address
                rest, frame = take(rest + raw)
                item = handle(frame)
                assert item is not None
        return self.count


def main() -> int:
    """Every figure once, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, default=FRAMES_DEFAULT)
    parser.add_argument("--runs", type=int, default=RUNS_DEFAULT)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a goal is missed")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    work = Work(options.frames)
    names = (
        "framing_ours", "framing_theirs", "stream_ours", "stream_theirs",
        "decoding_ours", "decoding_theirs", "decoding_declared",
    )  # fmt: skip
    each = timed({name: getattr(work, name) for name in names}, options.runs)
    figures = {name: median(found) for name, found in each.items()}
    # Of each run by itself, both at nearly the same time; then the median.
    shares = {
        kind: sorted(
            theirs / ours
            for theirs, ours in zip(each[f"{kind}_theirs"], each[f"{kind}_ours"], strict=True)
        )
        for kind in ("framing", "stream", "decoding")
    }
    ratios = {kind: median(found) for kind, found in shares.items()}
    shown: dict[str, object] = {"frames": work.count, "runs": options.runs}
    shown |= {f"{name}_us": round(value, 2) for name, value in figures.items()}
    shown |= {
        f"{kind}_frames_per_s": round(1e6 / figures[f"{kind}_ours"])
        for kind in ("framing", "decoding")
    }
    shown |= {f"{kind}_ratio": round(value, 2) for kind, value in ratios.items()}
    shown |= {
        f"{kind}_ratio_{end}": round(found[at], 2)
        for kind, found in shares.items()
        for end, at in (("lowest", 0), ("highest", -1))
    }
    if options.json:
        print(json.dumps(shown))
    else:
        for name, value in shown.items():
            print(f"  {name:<26}{value}")
        print(f"  goals: framing_ratio >= {FRAMING_GOAL}, decoding_ratio >= {DECODING_GOAL}")
    missed = ratios["framing"] < FRAMING_GOAL or ratios["decoding"] < DECODING_GOAL
    return 1 if options.strict and missed else 0


if __name__ == "__main__":
    sys.exit(main())
