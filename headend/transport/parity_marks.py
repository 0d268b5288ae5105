"""Decodes the marks a tty writes into its input when PARMRK is set. Pure, keeps its state.

With INPCK and PARMRK set a byte with a parity or framing error arrives as FF 00 xx, and a good FF
as FF FF (termios(3), PARMRK). A break arrives as FF 00 00, like a damaged 00.
"""

_ESCAPE = 0xFF
_NO_MARKS: tuple[int, ...] = ()


class MarkDecoder:
    """Turns marked input into bytes and the indexes of the bad ones, across chunk borders.

    A mark that no tty writes (FF followed by neither 00 nor FF) is not swallowed: both bytes are
    delivered, the FF as bad, since nothing is known of how it came.
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, tuple[int, ...] | list[int]]:
        """Decode one chunk. At most two bytes of an unfinished mark are held back."""
        if not self._held and _ESCAPE not in data:
            return data, _NO_MARKS
        data = self._held + data
        self._held = b""
        out = bytearray()
        bad: list[int] = []
        at, size = 0, len(data)
        while at < size:
            escape = data.find(_ESCAPE, at)
            if escape < 0:
                out += data[at:]
                break
            out += data[at:escape]
            mark = data[escape : escape + 3]
            if len(mark) == 1 or (len(mark) == 2 and mark[1] == 0):
                self._held = mark
                break
            if mark[1] == _ESCAPE:
                out.append(_ESCAPE)
                at = escape + 2
            elif mark[1] == 0:
                bad.append(len(out))
                out.append(mark[2])
                at = escape + 3
            else:
                bad.append(len(out))
                out.append(_ESCAPE)
                at = escape + 1
        return bytes(out), bad
