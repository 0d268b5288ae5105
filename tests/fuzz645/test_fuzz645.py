"""Whatever bytes come, only errors with names of ours come out, and work grows with the input.

The short form of `python -m tests.fuzz645`.
"""

from collections import Counter

import pytest
from hypothesis import settings

from protocols.dlt645.frame import DELIMITER, build
from protocols.framing import FrameFound, Framer
from tests.fuzz645 import run as fuzzing
from tests.fuzz645.inputs import Inputs
from tests.fuzz645.run import Told, count_steps, fuzz
from tests.fuzz645.targets import Targets

INPUTS_AN_EXAMPLE = 30
GOOD = build("202600000017", 0x91, bytes.fromhex("0000010067452301"))
HEAD = bytes.fromhex("68 170000002620 68 91")
# What makes a framer work hardest: heads that are false, in every place and of every length.
HARD = {
    "start bytes": b"\x68",
    "heads that never end": HEAD + b"\xff",
    "heads of the longest frame": HEAD + b"\xff" + b"\x68" * 14,
    "heads of nothing": HEAD + b"\x00",
    "heads inside heads": b"\x68" * 9 + b"\x10",
    "good frames": GOOD,
    "wrong check values": GOOD[:-2] + b"\x00\x16",
    "wrong ends": GOOD[:-1] + b"\x17",
    "wake-up bytes": b"\xfe",
    "ends": b"\x16",
}


def test_no_input_brings_out_an_error_without_a_name() -> None:
    told = fuzz(645, range(INPUTS_AN_EXAMPLE * settings().max_examples), steps_every=50)
    assert told.findings == {}
    assert told.steps_counted >= told.inputs // 50
    for way in ("frames", "reads", "values decoded", "load records decoded", "match reply"):
        assert told.ways[way] > told.inputs // 100, f"{way} is hardly tried"


@pytest.mark.parametrize("what", HARD)
def test_work_grows_no_faster_than_the_input(what: str) -> None:
    unit, told = HARD[what], Told()
    work = {}
    for size in (800, 3200):
        data = (unit * size)[:size]
        for pieces in ([data], [data[at : at + 1] for at in range(size)]):
            work[size, len(pieces)] = count_steps(data, pieces, told)
    assert told.steps_counted == 4
    assert work[3200, 1] <= 5 * work[800, 1]  # four times the input
    assert work[3200, 3200] <= 5 * work[800, 800]


def test_the_number_alone_makes_an_input_again() -> None:
    inputs = Inputs(7)
    first = [inputs.make(inputs.rng(number)) for number in range(50)]
    again = Inputs(7)
    assert [again.make(again.rng(number)) for number in reversed(range(50))] == first[::-1]
    assert len(set(first)) > 30


def test_a_finding_is_told_with_its_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is looked for would be found: an error of another kind, and one that has a name."""

    def breaks(_self: Targets, data: bytes, _rng: object, number: int) -> None:
        if number == 3:
            data.decode("ascii", errors="no such way") if data else b"".index(b"x")
            raise KeyError(number)

    monkeypatch.setattr(Targets, "take", breaks)
    told = fuzz(1, range(10))
    ((what, (number, text)),) = told.findings.items()
    assert number == 3
    assert bytes.fromhex(text) == Inputs(1).make(Inputs(1).rng(3))
    monkeypatch.setattr(fuzzing, "run", lambda *_args: (told, 1.0))
    monkeypatch.setattr("sys.argv", ["fuzz645"])
    assert fuzzing.main() == 1
    out = capsys.readouterr().out
    assert what in out
    assert text in out


def test_parts_of_a_run_add_up() -> None:
    one, other, whole = fuzz(645, range(20)), fuzz(645, range(20, 40)), fuzz(645, range(40))
    one.add(other)
    assert one == whole
    assert isinstance(one.ways, Counter)


def test_a_frame_behind_any_hard_stream_is_found() -> None:
    for unit in HARD.values():
        framer = Framer(DELIMITER)
        events = framer.feed((unit * 600)[:600]) + framer.idle()
        events += framer.feed(GOOD)
        assert [e.raw for e in events if isinstance(e, FrameFound)][-1] == GOOD
