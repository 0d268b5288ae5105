"""From one set of meters and plans to the next, while meters are read. Pure.

Nothing is taken off a frozen list: what is no longer read of it ends as missing, and its reason
says that the configuration was changed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from headend.acquisition.plans import ReadPlan, instants
from headend.acquisition.registry import Registry
from headend.domain.due import DueKey
from headend.domain.meter import Meter

METER_REMOVED = "meter_removed"
PLAN_CHANGED = "plan_changed"


@dataclass(frozen=True, slots=True)
class Changeover:
    """What was in force, and what will be."""

    old: Mapping[str, Meter]
    old_plans: Mapping[str, ReadPlan]
    new: Registry
    new_plans: Mapping[str, ReadPlan]

    @classmethod
    def between(
        cls,
        now: Registry,
        plans: Mapping[str, ReadPlan],
        then: Registry,
        then_plans: Mapping[str, ReadPlan],
    ) -> "Changeover":
        """`now` and `plans` are copied: they may change afterwards."""
        return cls({meter.id: meter for meter in now.all()}, dict(plans), then, then_plans)

    def meters(self) -> list[str]:
        """Those that came, went, changed, or are read by another plan than before."""
        new = {meter.id: meter for meter in self.new.all()}
        both = {**self.old, **new}
        return [name for name in both if not self._stays(self.old.get(name), new.get(name))]

    def _stays(self, old: Meter | None, new: Meter | None) -> bool:
        if old is None or new is None or old != new:
            return False
        return self.old_plans[old.plan].entries == self.new_plans[new.plan].entries

    def buses(self) -> set[str]:
        """Where the meters that are concerned hang, before and afterwards."""
        concerned = set(self.meters())
        both = (*self.old.values(), *self.new.all())
        return {meter.bus for meter in both if meter.id in concerned}

    def no_longer_read(
        self, from_ms: int, until_ms: int, zone: ZoneInfo
    ) -> Iterator[tuple[DueKey, str]]:
        """What was to be due in this time and will not be read, with the reason."""
        new = {meter.id: meter for meter in self.new.all()}
        for name in self.meters():
            if name not in self.old:
                continue
            before = _due(name, self.old_plans[self.old[name].plan], from_ms, until_ms, zone)
            meter = new.get(name)
            if meter is None:
                yield from ((key, METER_REMOVED) for key in before)
                continue
            after = set(_due(name, self.new_plans[meter.plan], from_ms, until_ms, zone))
            yield from ((key, PLAN_CHANGED) for key in before if key not in after)


def _due(
    meter: str, plan: ReadPlan, from_ms: int, until_ms: int, zone: ZoneInfo
) -> Iterator[DueKey]:
    for entry in plan.entries:
        for due_ms in instants(entry, from_ms, until_ms, zone):
            for point in entry.points:
                yield DueKey(meter, point, due_ms)
