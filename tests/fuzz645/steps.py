"""Work is counted, not clocked: lines of our own code, and bytes that are added up."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from protocols.dlt645.frame import DELIMITER
from protocols.framing import Rejected

PROTOCOLS = str(Path(__file__).parents[2] / "protocols")
# The worst that a byte may cost. A head may be false in every byte, and each false head is summed
# over as many bytes as the longest frame has before the next is tried: linear all the same.
SUMMED_PER_BYTE = 268
# Ten bytes of head are an object with its parts and errors in an explanation.
LINES_PER_BYTE = 100
LINES_FREE = 4000


class CountingDelimiter:
    """The real one; `summed` counts the bytes it looked through."""

    start = DELIMITER.start

    def __init__(self) -> None:
        self.summed = 0

    def measure(self, buffer: bytes | bytearray, at: int) -> int | Rejected | None:
        """As the real one."""
        self.summed += 1
        held = len(buffer) - at
        if held >= 10 and buffer[at + 7] == 0x68 and held >= buffer[at + 9] + 12:
            self.summed += buffer[at + 9] + 10
        return DELIMITER.measure(buffer, at)


def lines_of(work: Callable[[], object]) -> int:
    """How many lines of `protocols` are gone through; errors of the work come out."""
    count = 0

    def each_line(_frame: FrameType, event: str, _arg: object) -> object:
        nonlocal count
        count += event == "line"
        return each_line

    def each_call(frame: FrameType, _event: str, _arg: object) -> object:
        return each_line if frame.f_code.co_filename.startswith(PROTOCOLS) else None

    before = sys.gettrace()
    sys.settrace(each_call)  # type: ignore[arg-type]
    try:
        work()
    finally:
        sys.settrace(before)
    return count
