"""SunSpec devices: which models one has, found by walking its chain, and the profile they make.

`Walk` asks for reads and is told what came; it does no I/O itself. A chain begins with the marker
"SunS" and goes on model by model (id, length, content) to an end with the id 65535. What it finds
before it breaks is kept, and the break is named.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from protocols.errors import LocalProtocolError
from protocols.modbus.delimiter import COUNT_MAX
from protocols.modbus.register import DeviceProfile, Register, Span
from protocols.modbus.sunspec_models import Family, family_of, known_models
from protocols.quantities import known_quantity

MARKER = (0x5375, 0x6E53)  # "SunS"
BASES = (40_000, 50_000, 0)
FUNCTION = 3
HEAD_WORDS = 2  # of a model: its id and its length, which counts what follows
END_ID = 0xFFFF
MODELS_MAX = 64  # a chain that has more is none
ADDRESSES = 0x10000
TURNAROUND_MS = 20

Trouble = Literal[
    "no_marker", "no_answer", "refused", "no_length", "no_id", "beyond_the_end", "too_long"
]


@dataclass(frozen=True, slots=True)
class Model:
    """One model of a device. `address`: of its first register, which holds its id."""

    id: int
    address: int
    length: int

    @property
    def behind(self) -> int:
        """The address behind its last register."""
        return self.address + HEAD_WORDS + self.length


@dataclass(frozen=True, slots=True)
class ChainProblem:
    """Where a chain breaks, and how."""

    code: Trouble
    address: int
    message: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The models of a device, in order. `problem`: why there may be more that are not known."""

    base: int
    models: tuple[Model, ...]
    problem: ChainProblem | None = None

    @property
    def end(self) -> int:
        """The address of the end mark of a chain that has one."""
        return self.models[-1].behind if self.models else self.base + len(MARKER)


class Walk:
    """Finds the models of one device.

    While `ask` is not None, read that and hand over what came: `take` for registers, `refuse` for
    an exception, `give_up` for no answer. Then `chain` is there. Nothing is asked twice.
    """

    def __init__(self, *, function: int = FUNCTION, bases: Sequence[int] = BASES) -> None:
        if not bases:
            raise LocalProtocolError("a chain is looked for somewhere", code="bad_register")
        self._function = function
        self._bases = list(bases)
        self._base: int | None = None
        self._at = self._bases.pop(0)
        self._models: list[Model] = []
        self.chain: Chain | None = None

    @property
    def ask(self) -> Span | None:
        """What is to be read next; None when the walk is over."""
        return None if self.chain else Span(self._function, self._at, HEAD_WORDS)

    def take(self, words: Sequence[int]) -> None:
        """The registers that were asked for."""
        if self.chain is not None or len(words) != HEAD_WORDS:
            raise LocalProtocolError(
                f"the walk is over or asked for {HEAD_WORDS} registers, not {len(words)}",
                code="bad_count",
            )
        if self._base is None:
            self._take_marker(tuple(words))
        else:
            self._take_head(*words)

    def refuse(self, code: int) -> None:
        """The device answered with an exception."""
        if self._base is None:
            self._next_base()
        else:
            self._end("refused", f"the device refuses to say what stands there (exception {code})")

    def give_up(self) -> None:
        """Nothing came, after all tries."""
        self._end("no_answer", "the device does not answer")

    def _take_marker(self, words: tuple[int, ...]) -> None:
        if words != MARKER:
            self._next_base()
            return
        self._base = self._at
        self._at += len(MARKER)

    def _next_base(self) -> None:
        if self._bases:
            self._at = self._bases.pop(0)
        else:
            self._end("no_marker", "there is no 'SunS' where it may stand: no SunSpec device")

    def _take_head(self, model_id: int, length: int) -> None:
        if model_id == END_ID:
            self._end(None, "")
        elif model_id == 0:
            self._end("no_id", "a model has no id 0")
        elif length == 0:
            self._end("no_length", f"model {model_id} has no content, and no model follows it")
        elif self._at + HEAD_WORDS + length > ADDRESSES - HEAD_WORDS:
            message = f"model {model_id} with {length} registers ends behind the last address"
            self._end("beyond_the_end", message)
        elif len(self._models) >= MODELS_MAX:
            self._end("too_long", f"more than {MODELS_MAX} models")
        else:
            self._models.append(Model(model_id, self._at, length))
            self._at = self._models[-1].behind

    def _end(self, code: Trouble | None, message: str) -> None:
        problem = None if code is None else ChainProblem(code, self._at, message)
        base = self._at if self._base is None else self._base
        self.chain = Chain(base, tuple(self._models), problem)


def chain_of(ids: Iterable[int], *, base: int = BASES[0], common_length: int = 66) -> Chain:
    """A chain of known models, each as long as its family: for simulated devices and for checks.

    `common_length`: 65 or 66, as both are in the field. LocalProtocolError for an unknown model.
    """
    models: list[Model] = []
    at = base + len(MARKER)
    for one in ids:
        family = family_of(one)
        if family is None:
            raise LocalProtocolError(f"model {one} is not known here", code="unknown_model")
        length = common_length if family.name == "common" else family.length
        models.append(Model(one, at, length))
        at = models[-1].behind
    return Chain(base, tuple(models))


def sunspec_profile(
    chain: Chain, *, name: str = "sunspec", function: int = FUNCTION
) -> DeviceProfile:
    """What the known models of a device have, as a profile; unknown ones are left out.

    No request reaches from one model into the next. A device with a model of an inverter is one,
    and what its meter's models say is of the grid connection then. Of two models that say the same
    the one with integers counts, else the first. LocalProtocolError(code="no_known_model") when
    nothing can be read from it.
    """
    known = [(one, family) for one in chain.models if (family := family_of(one.id)) is not None]
    measuring = [(one, family) for one, family in known if family.kind != "identity"]
    if not measuring:
        ids = ", ".join(str(one.id) for one in chain.models) or "none"
        raise LocalProtocolError(
            f"no model of an inverter or a meter is in the chain: {ids}", code="no_known_model"
        )
    inverter = any(family.kind == "inverter" for _, family in measuring)
    registers: dict[str, Register] = {}
    for one, family in sorted(known, key=lambda pair: (pair[1].floats, pair[0].address)):
        behind_inverter = inverter and family.kind == "meter"
        for register in _registers(one, family, function, at_grid=behind_inverter):
            registers.setdefault(register.point, register)
    main = next(
        (one.id, family) for one, family in measuring if not inverter or family.kind == "inverter"
    )
    return DeviceProfile(
        id=name,
        device=f"SunSpec {main[1].kind}, model {main[0]}",
        kind="inverter" if inverter else "meter",
        side="primary",
        registers_max=COUNT_MAX,
        gaps="refuse",
        even_only=False,
        turnaround_ms=TURNAROUND_MS,
        registers=registers,
        phases=main[1].models[main[0]] or None,
        breaks=tuple(sorted({at for one in chain.models for at in (one.address, one.behind)})),
        spans=tuple(Span(function, one.address, one.behind - one.address) for one, _ in known),
    )


@cache
def any_sunspec() -> DeviceProfile:
    """What a SunSpec device may have, before its models are known: every point there is a name for.

    Good for checking names and for estimates. Nothing is read by it: where a point really stands
    only the device's own chain tells.
    """
    kinds = {one: family.kind for one in known_models() if (family := family_of(one)) is not None}
    meters = [one for one, kind in kinds.items() if kind != "inverter"]
    meter = sunspec_profile(chain_of(meters, base=BASES[1]))
    inverter = sunspec_profile(chain_of(kinds), name="sunspec")
    return replace(
        inverter,
        device="SunSpec device, known once it has answered",
        registers={**meter.registers, **inverter.registers},
        spans=(*inverter.spans, *meter.spans),
        breaks=tuple(sorted({*inverter.breaks, *meter.breaks})),
        phases=None,
    )


def _registers(model: Model, family: Family, function: int, *, at_grid: bool) -> Iterator[Register]:
    """The points of one model that lie within what it says is its length."""
    for point in family.points:
        name = f"grid_{point.point}" if at_grid else point.point
        if model.address + point.behind > model.behind:
            continue
        known = known_quantity(name)
        if known is None:
            continue  # of the meter behind an inverter only some quantities have a name
        yield point.register(
            name,
            function,
            model.address,
            decimals=known.decimals,
            bill=point.bill and not at_grid,
        )
