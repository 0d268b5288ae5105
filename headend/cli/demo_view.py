"""What the demo shows: one line a meter, and how far the readings have come."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headend.billing.views import BillingView
from headend.cli.output import say, table
from headend.config import load_config
from headend.domain.errors import HeadendError
from headend.journal import JournalReader
from simulators.street import StreetPlan

if TYPE_CHECKING:
    from rich.table import Table

TITLE = "headend demo: meters -> bus -> journal -> MQTT -> billing"
YIELD = "pv_yield_total"
HEADERS = (
    "meter", "home", "bus", "import kWh", "export kWh", "yield kWh", "power kW", "volt",
    "billed +", "billed -",
)  # fmt: skip
SHOWN = ("active_import_total", "active_export_total", YIELD, "active_power_total", "voltage_a")
KINDS = {
    "single": "home", "three": "shop", "pv": "home + PV", "pv3": "farm + PV", "inverter": "inverter"
}  # fmt: skip
DIRECTIONS = ("import", "export")
COUNTED = (*DIRECTIONS, "yield")


@dataclass(slots=True)
class Progress:
    """Counts of due points up to now, and of what became of them."""

    per_round: int = 0
    due: int = 0
    read: int = 0
    receipted: int = 0
    backlog: int = 0

    @property
    def settled(self) -> int:
        """Due points that have their reading."""
        return self.read

    @property
    def is_complete(self) -> bool:
        """Everything that was due is read, stored, delivered and receipted."""
        return 0 < self.due == self.read == self.receipted and self.backlog == 0

    def text(self) -> str:
        """One line for people."""
        return (
            f"due {self.due}   read {self.read}   at billing, receipted {self.receipted}"
            f"   waiting for a receipt {self.backlog}"
        )


@dataclass(slots=True)
class MeterLine:
    """The newest values of one meter."""

    values: dict[str, str] = field(default_factory=dict)
    billed: dict[str, Decimal | None] = field(default_factory=dict)


class DemoView:
    """Reads the journal and billing's database as any other program may."""

    def __init__(self, config_path: Path, plan: StreetPlan) -> None:
        self._config = load_config(config_path)
        self.plan = plan
        self.meters = sorted(plan.meters, key=lambda meter: meter.asset_id)
        self.lines = {meter.asset_id: MeterLine() for meter in self.meters}
        self.progress = Progress()
        self._url = self._config.billing_database_url

    def update(self, now_ms: int) -> Progress:
        """Look again. Blocking, short; before the databases are there everything is 0."""
        progress = Progress()
        try:
            read_ids = self._look_at_journal(progress, now_ms)
            self._look_at_billing(progress, read_ids)
        except (HeadendError, OSError):
            return self.progress  # not there yet, or just going down: what was seen last stands
        self.progress = progress
        return progress

    def _look_at_journal(self, progress: Progress, now_ms: int) -> set[str]:
        read_ids: set[str] = set()
        with JournalReader(self._config.journal_path) as journal:
            # Not the day's whole list: that would take the street's own process for seconds.
            days = journal.due_days()
            lines = [x for day in days for x in journal.due_lines(day, until_ms=now_ms)]
            first_ms = min((line.key.due_ms for line in lines), default=0)
            for line in lines:
                progress.per_round += line.key.due_ms == first_ms
                progress.due += 1
                if line.read_id is not None:
                    progress.read += 1
                    read_ids.add(line.read_id)
            for record in journal.newest():
                if record.meter in self.lines and record.value is not None:
                    self.lines[record.meter].values[record.point] = record.value
            progress.backlog = sum(c.backlog for c in journal.feed_status().values())
        return read_ids

    def _look_at_billing(self, progress: Progress, read_ids: set[str]) -> None:
        assert self._url is not None
        with BillingView(self._url) as billing:
            held = {row.read_id for row in billing.readings()}
            progress.receipted = len(read_ids & held)
            for meter in self.meters:
                line = self.lines[meter.asset_id]
                if meter.is_inverter:
                    yields = billing.readings(meter=meter.asset_id, point=YIELD)
                    values = [Decimal(row.value) for row in yields if row.value is not None]
                    line.billed = {"yield": values[-1] - values[0] if values else None}
                else:
                    point = billing.service_point(meter.service_point)
                    line.billed = {d: point.span(d).energy for d in DIRECTIONS}

    def result(
        self, start: dict[str, dict[str, Decimal]], end: dict[str, dict[str, Decimal]]
    ) -> dict[str, Any]:
        """The last JSON line: counts, and billing's energies beside the street's own."""
        progress = self.progress
        shown: dict[str, Any] = {
            "schema": "demo/1",
            "due": progress.due,
            "read": progress.read,
            "published": progress.receipted if not progress.backlog else progress.read,
            "receipted": progress.receipted,
            "meters": sum(not meter.is_inverter for meter in self.meters),
            "inverters": sum(meter.is_inverter for meter in self.meters),
        }
        for counted in COUNTED:
            having = [m.asset_id for m in self.meters if m.is_inverter == (counted == "yield")]
            shown[f"{counted}_kwh"] = {
                meter: _text(self.lines[meter].billed.get(counted)) for meter in having
            }
            shown[f"truth_{counted}_kwh"] = {
                meter: _text(registers[counted] - start[meter][counted])
                for meter, registers in end.items()
                if meter in having
            }
        shown["bills"] = 0
        return shown

    def rows(self) -> list[tuple[str, ...]]:
        """The table's lines."""
        found = []
        for meter in self.meters:
            line = self.lines[meter.asset_id]
            values = (line.values.get(point, "") for point in SHOWN)
            billed = (_text(line.billed.get(d)) or "" for d in DIRECTIONS)
            found.append((meter.asset_id, KINDS[meter.kind], meter.bus, *values, *billed))
        return found


def _text(value: Decimal | None) -> str | None:
    return None if value is None else format(value, "f")


def table_text(view: DemoView) -> str:
    """The table for a pipe or the end."""
    lines = table(HEADERS, view.rows(), right=frozenset(range(3, len(HEADERS))))
    return f"{lines}\n{view.progress.text()}"


@asynccontextmanager
async def show_live(view: DemoView, *, is_shown: bool) -> AsyncIterator[Callable[[], None]]:
    """A live table while the block lasts; gives the function that draws it anew.

    Without a terminal only the counts are said, when they change.
    """
    from rich.console import Console  # noqa: PLC0415 - only the demo pays for it
    from rich.live import Live  # noqa: PLC0415

    console = Console()
    if is_shown and console.is_terminal:
        with Live(_rich_table(view), console=console, auto_refresh=False) as live:

            def redraw() -> None:
                live.update(_rich_table(view), refresh=True)

            yield redraw
        return
    said = ""

    def tell() -> None:
        nonlocal said
        if view.progress.text() != said and view.progress.due:
            said = view.progress.text()
            say(said)

    yield tell


def _rich_table(view: DemoView) -> "Table":
    from rich.table import Table  # noqa: PLC0415 - only the demo pays for it

    shown = Table(title=TITLE, caption=f"{view.progress.text()}\nCtrl-C ends the demo")
    for index, name in enumerate(HEADERS):
        shown.add_column(name, justify="right" if index >= 3 else "left")
    for row in view.rows():
        shown.add_row(*row)
    return shown
