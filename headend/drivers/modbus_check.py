"""Whether it is still this device, and with these transformers: asked at first contact and daily.

A wrong ratio makes every bill wrong by a factor, another device makes its counters another's; both
are seen nowhere in the values. What is not as configured, or not as it was, is told as a notice,
and values that stand on it bear a doubt. Nothing is decided here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from headend.domain.clock import Clock, iso
from headend.domain.errors import Busy, Refused
from headend.drivers.modbus_blocks import Got
from headend.drivers.modbus_memory import TEXT_MAX, DeviceMemory
from headend.drivers.result import Doubt
from protocols.errors import BadContent
from protocols.modbus.decode import decode
from protocols.modbus.ratio import RATIO_POINTS, Mismatch, ratio_check, ratio_points
from protocols.modbus.register import DeviceProfile, Register
from protocols.quantities import known_quantity

CHECK_EVERY_S = 86_400.0
# Points that say what kind of device it is. Firmware may change, so may the number on the bus; for
# the serial number every meter is asked, whatever its protocol, by whoever opens the session.
IDENTITY = ("manufacturer", "model", "device_type")

RATIO_MISMATCH = "ratio_mismatch"
RATIO_CHANGED = "ratio_changed"
DEVICE_CHANGED = "device_changed"
MODELS_CHANGED = "models_changed"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about a device that a person should know. `name`: of the alarm.

    `stands` True: it holds from now on; False: it does not, or no more; None: it has happened.
    """

    name: str
    stands: bool | None
    fields: Mapping[str, Any] = field(default_factory=dict)


class SelfCheck:
    """Owner of what one device says of itself. `tell` is called for whatever is worth knowing."""

    def __init__(
        self,
        profile: DeviceProfile,
        memory: DeviceMemory,
        *,
        ct: Decimal,
        pt: Decimal,
        clock: Clock,
        tell: Callable[[Notice], None],
    ) -> None:
        self._profile = profile
        self._ct, self._pt = ct, pt
        self._clock = clock
        self._tell = tell
        self._told = dict(memory.told)
        self._told_ms = memory.told_ms
        self._now: dict[str, str] = {}  # by point, where it differs from what was told before
        self._mismatch: Mismatch | None = None
        self._checked_at: float | None = None
        self._unchecked = bool(self._ratio_registers)

    @property
    def registers(self) -> tuple[Register, ...]:
        """What is to be read for it; none where the device says nothing of itself."""
        has = self._profile.registers
        return (*self._ratio_registers, *(has[point] for point in IDENTITY if point in has))

    @property
    def _ratio_registers(self) -> tuple[Register, ...]:
        has = self._profile.registers
        return tuple(has[point] for point in RATIO_POINTS if point in has)

    @property
    def is_due(self) -> bool:
        """Whether it is time to ask."""
        if not self.registers:
            return False
        last = self._checked_at
        return last is None or self._clock.monotonic() - last >= CHECK_EVERY_S

    def keep_in(self, memory: DeviceMemory) -> DeviceMemory:
        """The memory with what was told."""
        return replace(memory, told=dict(self._told), told_ms=self._told_ms)

    def differs(self, found: Sequence[Got]) -> bool:
        """Whether it is worth asking once more before it is believed."""
        words = _words(found)
        check = ratio_check(self._profile, self._of_ratios(words), self._ct, self._pt)
        mismatch = check if isinstance(check, Mismatch) else None
        return mismatch != self._mismatch or any(
            text not in (self._told.get(point), self._now.get(point))
            for point, text in self._texts(words).items()
            if point in self._told
        )

    def take(self, found: Sequence[Got]) -> None:
        """What the device says of itself. What did not come is asked for again the next time."""
        words = _words(found)
        refused = {
            one.point for got in found if _is_refused(got.error) for one in got.block.registers
        }
        missing = {one.point for one in self.registers} - words.keys() - refused
        if not missing:
            self._checked_at = self._clock.monotonic()
        if missing.isdisjoint(RATIO_POINTS):
            self._unchecked = False
        if not words.keys().isdisjoint(RATIO_POINTS) or not self._ratio_registers:
            self._take_ratios(words)
        self._take_texts(self._texts(words))

    def doubt(self, register: Register) -> Doubt | None:
        """Why a value of this register is not to be billed on; None: nothing is known."""
        if self._now.keys() & set(IDENTITY) and _counts(register):
            why = f"another device answers: {self._changes(IDENTITY)}"
            return Doubt(DEVICE_CHANGED, why, holds=True)
        if register.ratio is None:
            return None
        if self._mismatch is not None:
            return Doubt("ratio", str(self._mismatch), self._mismatch.sure)
        if self._unchecked:
            why = "the device's own ratios could not be read yet"
            return Doubt("ratio_unchecked", why, holds=False)
        return None

    # -- what is told

    def _of_ratios(self, words: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
        return {point: words[point] for point in ratio_points(self._profile) if point in words}

    def _take_ratios(self, words: Mapping[str, Sequence[int]]) -> None:
        found = ratio_check(self._profile, self._of_ratios(words), self._ct, self._pt)
        if not isinstance(found, Mismatch):
            self._mismatch = None
            self._tell(Notice(RATIO_MISMATCH, stands=False))
            return
        if found == self._mismatch:
            return
        self._mismatch = found
        fields = {
            "reason": str(found),
            "sure": found.sure,
            "differences": [
                {
                    "point": one.point,
                    "configured": format(one.configured, "f"),
                    "device": None if one.told is None else format(one.told, "f"),
                }
                for one in found.differences
            ],
        }
        self._tell(Notice(RATIO_MISMATCH, stands=True, fields=fields))

    def _take_texts(self, texts: Mapping[str, str]) -> None:
        now_ms = self._clock.now_ms()
        for point, text in texts.items():
            known = self._told.get(point)
            if known is None:
                self._told[point] = text
            elif point in RATIO_POINTS and text != known:
                self._tell(Notice(RATIO_CHANGED, None, self._ratio_change(point, text, now_ms)))
                self._told[point] = text
        changed = {p: t for p, t in texts.items() if p in IDENTITY and t != self._told[p]}
        if changed != self._now:
            self._now = changed
            fields = {"reason": self._changes(IDENTITY), "was": self._was(), "now": changed}
            stands = bool(changed)
            self._tell(Notice(DEVICE_CHANGED, stands, fields if stands else {}))
        elif texts and not changed:
            self._tell(Notice(DEVICE_CHANGED, stands=False))
        if texts and not changed:
            self._told_ms = now_ms

    def _ratio_change(self, point: str, text: str, now_ms: int) -> dict[str, Any]:
        """The event that somebody may have to declare: the time lies between two looks."""
        known_ms = self._told_ms
        return {
            "point": point,
            "was": self._told[point],
            "now": text,
            "after": None if known_ms is None else iso(known_ms),
            "before": iso(now_ms),
            "reason": f"{point} of the device went from {self._told[point]} to {text}",
        }

    def _was(self) -> dict[str, str]:
        return {point: self._told[point] for point in self._now}

    def _changes(self, points: Sequence[str]) -> str:
        told = [
            f"{point} was {self._told[point]}, is {self._now[point]}"
            for point in points
            if point in self._now
        ]
        return "; ".join(told)

    def _texts(self, words: Mapping[str, Sequence[int]]) -> dict[str, str]:
        """By point, as text; what holds nothing, or no text, is left out."""
        found: dict[str, str] = {}
        for register in self.registers:
            if register.point not in words:
                continue
            try:
                value = decode(register, tuple(words[register.point]), apply_ratio=False)
            except BadContent:
                continue
            text = format(value, "f") if isinstance(value, Decimal) else (value or "").strip()
            if text:
                found[register.point] = text[:TEXT_MAX]
        return found


def _words(found: Sequence[Got]) -> dict[str, tuple[int, ...]]:
    return {
        register.point: got.block.words_of(register, got.words)
        for got in found
        if got.error is None
        for register in got.block.registers
    }


def _is_refused(error: Exception | None) -> bool:
    return isinstance(error, Refused) and not isinstance(error, Busy)


def _counts(register: Register) -> bool:
    known = known_quantity(register.point)
    return known is not None and known.kind in ("register", "demand")
