"""A serial port as a link: opened and configured once, then read by the event loop itself.

pyserial finds the right termios settings and takes the lock; nothing of it is called after that,
because on a pseudo terminal with parity every later change of a setting raises termios.error.
"""

import asyncio
import contextlib
import errno
import os
import termios
from pathlib import Path

import serial

from headend.domain.errors import PortBusy, PortGone
from headend.domain.link import SerialSpec
from headend.transport.link import Receiver
from headend.transport.parity_marks import MarkDecoder

READ_BYTES_MAX = 4096
WRITE_BUFFER_MAX = 8192  # far above any request; more waiting means the port takes nothing

_PARITY = {
    "none": serial.PARITY_NONE,
    "even": serial.PARITY_EVEN,
    "odd": serial.PARITY_ODD,
    "mark": serial.PARITY_MARK,
    "space": serial.PARITY_SPACE,
}
_IFLAG, _CFLAG, _CC = 0, 2, 6


def char_bits(parity: str, stop_bits: int) -> int:
    """Bits one character of eight data bits takes on the wire, start bit included."""
    return 1 + 8 + (parity != "none") + stop_bits


class SerialLink:
    """A serial port, a pseudo terminal or a USB adapter. Not thread-safe: the loop's own."""

    def __init__(self, spec: SerialSpec) -> None:
        self.name = spec.path
        self.parity_seen = bool(spec.parity_seen)
        self.char_s = char_bits(spec.parity, spec.stop_bits) / spec.baud if spec.baud else 0.0
        self._spec = spec
        self._port: serial.Serial | None = None
        self._fd = -1
        self._decoder: MarkDecoder | None = None
        self._receiver: Receiver | None = None
        self._unsent = bytearray()

    def present(self) -> bool:
        """The port's path exists."""
        return Path(self._spec.path).exists()

    async def open(self, receiver: Receiver) -> None:
        """Open in a thread (a driver may take its time). PortGone, PortBusy."""
        await self.close()
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(None, self._open_port)
        try:
            port, marked, seen = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise
        self._port, self._fd = port, port.fileno()
        self._decoder = MarkDecoder() if marked else None
        self.parity_seen = seen if self._spec.parity_seen is None else self._spec.parity_seen
        self._receiver = receiver
        loop.add_reader(self._fd, self._readable)

    def write(self, data: bytes) -> None:
        """Send what the port takes now, the rest as it becomes writable. PortGone."""
        if self._port is None:
            msg = f"{self.name} is not open"
            raise PortGone(msg, bus=self.name)
        sent = 0
        if not self._unsent:
            try:
                sent = os.write(self._fd, data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                # Here the caller learns of it by the exception, so link_lost stays silent.
                self._shut()
                msg = f"{self.name} is gone while sending: {error}"
                raise PortGone(msg, bus=self.name) from error
        if sent == len(data):
            return
        if len(self._unsent) + len(data) - sent > WRITE_BUFFER_MAX:
            self._shut()
            msg = f"{self.name} takes no bytes: flow control or a stuck adapter"
            raise PortGone(msg, bus=self.name)
        if not self._unsent:
            asyncio.get_running_loop().add_writer(self._fd, self._writable)
        self._unsent += data[sent:]

    async def close(self) -> None:
        """Close the port; whatever the driver says about it is of no use any more."""
        self._shut()

    def _open_port(self) -> tuple[serial.Serial, bool, bool]:
        """Open, lock, configure. Returns the port, whether input is marked, whether to trust it."""
        try:
            port = self._open_configured()
        except (OSError, termios.error, ValueError) as error:  # SerialException is an OSError
            raise _port_error(self.name, error) from error
        try:
            marked, seen = _mark_damaged_bytes(port.fileno(), parity=self._spec.parity != "none")
        except (OSError, termios.error) as error:
            _close_port(port)
            raise _port_error(self.name, error) from error
        return port, marked, seen

    def _open_configured(self) -> serial.Serial:
        parity = _PARITY[self._spec.parity]
        try:
            return self._serial(parity)
        except termios.error:
            # A pseudo terminal knows no parity and refuses settings in which only that differs.
            if not os.path.realpath(self._spec.path).startswith("/dev/pts/"):
                raise
            return self._serial(serial.PARITY_NONE)

    def _serial(self, parity: str) -> serial.Serial:
        return serial.Serial(
            self._spec.path,
            baudrate=self._spec.baud or 9600,
            bytesize=serial.EIGHTBITS,
            parity=parity,
            stopbits=self._spec.stop_bits,
            timeout=0,
            exclusive=True,
        )

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES_MAX)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(error)
            return
        if not data:  # VMIN is 1: no byte means the other side hung up
            self._lost(None)
            return
        receiver = self._receiver
        if receiver is None:
            return
        if self._decoder is None:
            receiver.bytes_received(data, ())
            return
        data, bad = self._decoder.feed(data)
        if data:
            receiver.bytes_received(data, bad)

    def _writable(self) -> None:
        try:
            sent = os.write(self._fd, self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(error)
            return
        del self._unsent[:sent]
        if not self._unsent:
            asyncio.get_running_loop().remove_writer(self._fd)

    def _lost(self, reason: Exception | None) -> None:
        receiver = self._receiver
        self._shut()  # at once: a descriptor kept open forces the adapter to take another name
        if receiver is not None:
            receiver.link_lost(reason)

    def _shut(self) -> None:
        port, self._port = self._port, None
        if port is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._fd)
        loop.remove_writer(self._fd)
        self._fd = -1
        self._receiver = None
        self._unsent.clear()
        _close_port(port)


def _mark_damaged_bytes(fd: int, *, parity: bool) -> tuple[bool, bool]:
    """Ask the tty to mark damaged bytes. Returns (input is marked, damaged bytes will be seen).

    The attributes are read back first, so that what the port did not take (parity on a pty) is
    not asked for again. VMIN 1 makes "nothing there" and "hung up" two different things.
    """
    attributes = termios.tcgetattr(fd)
    attributes[_CC][termios.VMIN] = 1
    if parity:
        attributes[_IFLAG] |= termios.INPCK | termios.PARMRK
        attributes[_IFLAG] &= ~(termios.IGNPAR | termios.ISTRIP | termios.IGNBRK | termios.BRKINT)
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    got = termios.tcgetattr(fd)
    marked = bool(got[_IFLAG] & termios.PARMRK)
    checked = bool(got[_IFLAG] & termios.INPCK) and bool(got[_CFLAG] & termios.PARENB)
    real = not os.ttyname(fd).startswith("/dev/pts/")
    return marked, marked and checked and real


def _port_error(name: str, error: BaseException) -> PortGone | PortBusy:
    """The head-end's error for what the operating system said, with what to do about it."""
    code = getattr(error, "errno", None)
    if code is None and error.args and isinstance(error.args[0], int):
        code = error.args[0]  # termios.error carries it as its first argument
    if code in (errno.EAGAIN, errno.EBUSY):
        msg = f"{name} is in use by another program: end it, or read through the running daemon"
        return PortBusy(msg, bus=name)
    if code == errno.EPERM:  # not a matter of the file's mode: the service may not have it at all
        msg = f"{name} is kept from this service: allow its driver by DeviceAllow= in the unit"
    elif code == errno.EACCES:
        msg = f"no permission for {name}: add this user to the group dialout and log in again"
    elif code in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        msg = f"{name} is not there: plug the adapter in, or name it by its /dev/serial/by-path"
    else:
        msg = f"{name} cannot be opened as a serial port: {error}"
    return PortGone(msg, bus=name)


def _close_port(port: serial.Serial) -> None:
    # Without the flush a driver may wait for bytes that will never leave.
    with contextlib.suppress(OSError, termios.error, ValueError, TypeError):
        termios.tcflush(port.fileno(), termios.TCOFLUSH)
    with contextlib.suppress(OSError, termios.error):
        port.close()


def _close_unwanted(opening: "asyncio.Future[tuple[serial.Serial, bool, bool]]") -> None:
    """The opener was cancelled while the port was being opened: close it again."""
    if not opening.cancelled() and opening.exception() is None:
        _close_port(opening.result()[0])
