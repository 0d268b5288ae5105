"""What may be asked of running devices and done to them, in this process or over a control socket.

Commands (`do`): `truth` (`at_ms`, `meters`, `points`), `off`, `on` (`at_ms`), `fault` and `clear`
(`meter`, `fault`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from simulators.curves import mix
from simulators.energy import Timeline
from simulators.faults import Fault
from simulators.measured import Register


class Device(Protocol):
    """A simulated meter or inverter, of whatever protocol."""

    faults: list[Fault]

    def truth(self, at_ms: int, points: Iterable[str] | None = None) -> dict[str, Register]:
        """Registers at a wall time, exact and as shown: those asked for that it has, or all."""
        ...

    def add_fault_text(self, text: str, seed: int) -> None:
        """One more fault from the next request on; ValueError for a text that is none."""
        ...

    def clear_faults(self, name: str | None = None) -> None:
        """Take away the faults of a name, or all."""
        ...

    def warm_up(self) -> None:
        """Do the sums that the first reader would wait for."""
        ...


class Steering:
    """Devices by name, and the time that drives their energy.

    `speed`: what `on` switches back to. `clock` gives wall time in milliseconds.
    """

    def __init__(
        self,
        devices: Mapping[str, Device],
        timeline: Timeline,
        *,
        speed: int,
        clock: Callable[[], int],
        seed: int = 0,
    ) -> None:
        self._devices = devices
        self._timeline = timeline
        self._speed = speed
        self._clock = clock
        self._seed = seed
        self._faults_given = 0

    def truth(
        self, name: str, at_ms: int | None = None, points: Iterable[str] | None = None
    ) -> dict[str, Register]:
        """Registers of a device at a wall time (now); KeyError."""
        return self._devices[name].truth(self._clock() if at_ms is None else at_ms, points)

    def switch_off(self, at_ms: int | None = None) -> int:
        """All loads and panels to zero from `at_ms` (now) on; the registers stand. Returns when."""
        when = self._clock() if at_ms is None else at_ms
        self._timeline.switch_off(when)
        return when

    def switch_on(self, at_ms: int | None = None) -> int:
        """Loads and panels run again from `at_ms` (now) on. Returns when."""
        when = self._clock() if at_ms is None else at_ms
        self._timeline.change(when, self._speed)
        return when

    def command(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One control command; KeyError, ValueError."""
        match request.get("do"):
            case "truth":
                return self._truth_json(request)
            case "off":
                return {"at_ms": self.switch_off(request.get("at_ms"))}
            case "on":
                return {"at_ms": self.switch_on(request.get("at_ms"))}
            case "fault":
                device = self._devices[request["meter"]]
                self._faults_given += 1
                device.add_fault_text(request["fault"], mix(self._seed, self._faults_given))
                return {"faults": [fault.name for fault in device.faults]}
            case "clear":
                device = self._devices[request["meter"]]
                device.clear_faults(request.get("fault"))
                return {"faults": [fault.name for fault in device.faults]}
        msg = f"unknown command {request.get('do')!r}; known: truth, off, on, fault, clear"
        raise ValueError(msg)

    def _truth_json(self, request: Mapping[str, Any]) -> dict[str, Any]:
        at_ms = int(request.get("at_ms") or self._clock())
        asked: Sequence[str] = request.get("meters") or list(self._devices)
        points = request.get("points")
        return {
            "at_ms": at_ms,
            "meters": {
                name: {
                    point: {"exact": f"{register.exact:f}", "shown": f"{register.shown:f}"}
                    for point, register in self.truth(name, at_ms, points).items()
                }
                for name in asked
            },
        }
