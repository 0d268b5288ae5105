"""What a drill tells at its end: what was lost, what was degraded, and for how long."""

from dataclasses import asdict, dataclass, field
from typing import Any

from headend.cli.drills.words import word
from headend.domain.clock import iso

SCHEMA = "drill/1"


@dataclass(frozen=True, slots=True)
class Step:
    """Something that was done or seen, at a time of the drill's own clock."""

    at_ms: int
    what: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Degraded:
    """What did not work as usual, from when to when; `detail` in numbers."""

    what: str
    from_ms: int
    until_ms: int
    detail: str = ""

    @property
    def seconds(self) -> float:
        """For how long."""
        return (self.until_ms - self.from_ms) / 1000


@dataclass(frozen=True, slots=True)
class Lost:
    """Something that is gone or wrong for good, how much of it, and an example."""

    what: str
    count: int
    detail: str = ""


@dataclass
class Counts:
    """The books: due list, journal and billing side by side."""

    due: int = 0
    read: int = 0
    late: int = 0
    missing: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    readings: int = 0
    at_billing: int = 0
    not_at_billing: int = 0
    only_at_billing: int = 0
    twice_at_billing: int = 0
    registers_compared: int = 0


@dataclass
class DrillReport:
    """All of it. `unseen`: what should have shown itself and did not."""

    drill: str
    fault_s: float
    steps: list[Step] = field(default_factory=list)
    degraded: list[Degraded] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    @property
    def passed(self) -> bool:
        """Nothing was lost, and all that should have shown itself did."""
        return not self.lost and not self.unseen

    def to_json(self) -> dict[str, Any]:
        """`drill/1`."""
        return {
            "schema": SCHEMA,
            "drill": self.drill,
            "passed": self.passed,
            "fault_s": round(self.fault_s, 1),
            "lost": [asdict(one) for one in self.lost],
            "degraded": [
                {
                    "what": one.what,
                    "from": iso(one.from_ms),
                    "until": iso(one.until_ms),
                    "seconds": round(one.seconds, 1),
                    "detail": one.detail,
                }
                for one in self.degraded
            ],
            "unseen": list(self.unseen),
            "alarms": list(self.alarms),
            "counts": asdict(self.counts),
            "steps": [
                {"at": iso(one.at_ms), "what": one.what, "detail": one.detail} for one in self.steps
            ],
        }

    def text(self, language: str) -> str:
        """For people."""

        def said(key: str, **values: object) -> str:
            return word(key, language).format(**values)

        counts = self.counts
        lines = ["", said("report", drill=self.drill, seconds=round(self.fault_s, 1))]
        for kind, some in (("lost", self.lost), ("degraded", self.degraded)):
            lines.append(said(kind) + ("" if some else "  " + said("nothing")))
            for one in some:
                name = word(f"{kind}.{one.what}", language)
                if isinstance(one, Degraded):
                    name = said("for_seconds", name=name, seconds=f"{one.seconds:.1f}")
                else:
                    name = f"{name}: {one.count}"
                lines.append(f"  {name}" + (f"  ({one.detail})" if one.detail else ""))
        if self.unseen:
            lines.append(said("unseen"))
            lines += [f"  {word(f'seen.{what}', language)}" for what in self.unseen]
        if self.alarms:
            lines.append(said("alarms", names=", ".join(self.alarms)))
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(counts.reasons.items()))
        lines.append(
            said(
                "books",
                **(asdict(counts) | {"reasons": f" ({reasons})" if reasons else ""}),
            )
        )
        lines.append(said("passed" if self.passed else "failed"))
        return "\n".join(lines)
