"""Compares three things that must agree: what the meters served, the journals, and billing.

Truth is what the simulated meters wrote down before their bytes left; the journals are all files
there ever were (in use, set aside, replaced); billing is its database. Read as plain SQL and JSON,
without the product's code.

Must be there = what a journal in use holds once it is drained, and of a journal that is gone what
billing had receipted of it. Nothing else may be missing, nothing may be there twice, and nothing
may be there that no meter said.
"""

import itertools
import json
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from tests.kill.journals import (
    BILLING_KIND,
    EVENTS_KIND,
    HELD,
    SETTLED,
    BillingView,
    JournalView,
    Kept,
    Said,
    read_billing,
    read_journal,
    read_only,
)
from tests.kill.series import Server, compare, read_series

REPLACED = "-replaced"  # a journal in whose place an older copy of itself was put
SHOWN_MAX = 10  # of each kind
WAKE_UP = b"\xfe"
REGISTERS = ("active_", "reactive_q", "reactive_import", "reactive_export")
NO_REGISTERS = ("active_power", "reactive_power")


class Finding(NamedTuple):
    """Something that does not agree."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class Answer(NamedTuple):
    """One value a meter served."""

    value: str | None
    raw: bytes


@dataclass
class Report:
    """The findings (the first few of each kind) and what was compared."""

    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    by_kind: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, text: str) -> None:
        """One more."""
        self.by_kind[kind] += 1
        if self.by_kind[kind] <= SHOWN_MAX:
            self.findings.append(Finding(kind, text))

    def take(self, other: "Report") -> None:
        """Another report's findings and counts as well."""
        self.findings += other.findings
        self.counts.update(other.counts)
        self.by_kind.update(other.by_kind)

    def line(self) -> str:
        """One line for the progress."""
        told = " ".join(f"{name}={count}" for name, count in self.counts.items())
        return f"{told} findings={sum(self.by_kind.values())}"

    def lines(self) -> list[str]:
        """For the table at the end."""
        width = 21
        lines = [f"{name.replace('_', ' '):{width}}{n}" for name, n in self.counts.items()]
        return [*lines, f"{'findings':{width}}{sum(self.by_kind.values())}"]


class Truth:
    """What the meters served, by meter address and point; grows with the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._times: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._answers: dict[tuple[str, str], list[Answer]] = defaultdict(list)
        self.served = 0

    def read_on(self) -> None:
        """Take what was written since the last time."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._take(json.loads(line))

    def _take(self, served: Mapping[str, object]) -> None:
        raw = bytes.fromhex("".join(served["raw"]))  # type: ignore[arg-type]
        if not raw:
            return
        self.served += 1
        points, values = served["points"], served["values"]
        for point, value in zip(points, values, strict=True):  # type: ignore[call-overload]
            key = (str(served["meter"]), point)
            self._times[key].append(int(served["at_ms"]))  # type: ignore[call-overload]
            self._answers[key].append(Answer(value, raw.lstrip(WAKE_UP)))

    def between(
        self, address: str, point: str, from_ms: int, to_ms: int
    ) -> list[tuple[int, Answer]]:
        """The answers served in a span of time, with their places, oldest first."""
        times = self._times.get((address, point), [])
        first, last = bisect_left(times, from_ms), bisect_right(times, to_ms)
        answers = self._answers[address, point]
        return [(index, answers[index]) for index in range(first, last)]


class Checker:
    """Checks a folder, again and again; remembers of closed journals what it has seen."""

    def __init__(
        self,
        folder: Path,
        *,
        billing: Callable[[], Any] | None = None,
        series: Server | None = None,
    ) -> None:
        """`billing` opens billing's database; None: the SQLite file of the folder."""
        self._folder = folder
        self._series = series
        self._open_billing = billing or (lambda: read_only(folder / "billing" / "billing.db"))
        self._truth = Truth(folder / "truth.jsonl")
        self._closed: dict[Path, JournalView] = {}
        self._claims: dict[tuple[str, str, int], str] = {}  # address, point, place -> read_id
        self._true_values: dict[str, str | None] = {}  # read_id -> what the meter said

    def check(self) -> Report:
        """Compare everything there is now. The journal in use must be drained."""
        report = Report()
        self._truth.read_on()
        views = self._journals(report)
        billing = read_billing(self._open_billing)
        self._check_billing_itself(report, billing)
        at_billing = {said.read_id: said for said in billing.history}
        at_billing |= {said.read_id: said for said, _epoch, _ref in billing.current}
        everything: dict[str, Said] = {}
        must: set[str] = set()
        for view in views:
            everything |= {kept.said.read_id: kept.said for kept in view.readings.values()}
            must |= _must(view, self._through(view), billing, report)
            self._check_cursor(report, view, billing)
        self._check_known(report, billing, everything, {e for v in views for e in v.epochs})
        # A journal that was set back gives numbers out again. Anywhere else it was a loss.
        set_back = {view.epoch for view in views if view.path.parent.name.endswith(REPLACED)}
        for epoch in billing.recovered - set_back:
            report.add("recovered", f"billing had lost something of the epoch {epoch}")
        for read_id in must - at_billing.keys():
            report.add("missing", f"billing has not {everything[read_id]}")
        for read_id, said in at_billing.items():
            kept = everything.get(read_id)
            if kept is not None and kept != said:
                report.add("differs", f"journal {kept} billing {said}")
        self._check_acks(report, everything.keys())
        self._check_bytes(report, views, billing)
        self._check_differences(report, billing)
        report.counts.update(self._count(views, billing, everything, must))
        if self._series is not None:
            self._check_series(report, views, self._series)
        return report

    def _check_series(self, report: Report, views: list[JournalView], server: Server) -> None:
        in_use = views[-1]
        if in_use.written != in_use.series_last:
            report.add("not_drained", f"series: {in_use.written} of {in_use.series_last}")
        found = read_series(server)
        compared = compare(found, views)
        for finding in compared.findings:
            report.add(*finding)
        report.counts["must_be_in_series"] = compared.must
        report.counts["in_time_series"] = len(found)

    def check_spans(self, spans: Iterable[Mapping[str, object]]) -> Report:
        """Billing's own sums (`billing show --span --json`) against the truth."""
        report = Report()
        for span in spans:
            parts = span["parts"]
            what = f"{span['service_point']} {span['direction']}"
            if not isinstance(parts, list) or len(parts) != 1:
                report.add("span", f"{what}: {len(parts)} parts, reason {span['reason']}")  # type: ignore[arg-type]
                continue
            ends = [self._true_values.get(parts[0][end]["source"]) for end in ("start", "end")]
            if None in ends:
                report.add("span", f"{what}: stands on readings no meter gave")
                continue
            if Decimal(ends[1]) - Decimal(ends[0]) != Decimal(str(span["energy"])):  # type: ignore[arg-type]
                report.add("span", f"{what}: {span['energy']} against {ends[1]} - {ends[0]}")
            report.counts["spans"] += 1
        return report

    # -- the journals

    def _journals(self, report: Report) -> list[JournalView]:
        """Every journal, each checked in itself; those that are gone only once."""
        views = []
        for path in sorted((self._folder / "journals").glob("*/journal.db")):
            if not (path.parent / "through_seq").exists():
                continue  # a copy that was not needed: a beginning of one of the others
            view = self._closed.get(path)
            if view is None:
                view = self._closed[path] = read_journal(path)
                self._check_journal(report, view)
            views.append(view)
        view = read_journal(self._folder / "data" / "journal.db")
        self._check_journal(report, view)
        if view.receipted != view.last_seq:
            report.add("not_drained", f"{view.path}: {view.receipted} of {view.last_seq}")
        return [*views, view]

    def _through(self, view: JournalView) -> int:
        """Up to where a journal's stream must be at billing."""
        path = view.path.parent / "through_seq"
        known = int(path.read_text()) if path.exists() else view.last_seq
        return max(known, view.receipted)

    def _check_journal(self, report: Report, view: JournalView) -> None:
        _check_stream(report, view)
        _check_keys(report, view)
        _check_due(report, view)
        for kept in view.readings.values():
            self._check_truth(report, view, kept)

    def _check_truth(self, report: Report, view: JournalView, kept: Kept) -> None:
        """A reading stands on one answer of its meter, with its bytes, its value, its time."""
        said = kept.said
        attempt = view.attempts.get(kept.xid)
        if attempt is None or attempt.reply is None:
            report.add("untrue", f"no bytes behind {said}")
            return
        address = f"{int(said.meter.removeprefix('M-')) + 1:012d}"
        if not attempt.sent_ms <= said.time_ms <= attempt.received_ms:
            report.add("untrue", f"{said} is not of the time {attempt}")
        reply = attempt.reply.lstrip(WAKE_UP)
        served = self._truth.between(address, said.point, attempt.sent_ms, attempt.received_ms)
        fitting = [(place, answer) for place, answer in served if answer.raw == reply]
        if not fitting:
            report.add("untrue", f"no meter sent what {said} stands on")
            return
        value = fitting[-1][1].value
        if value is None or said.value is None or Decimal(value) != Decimal(said.value):
            report.add("untrue", f"the meter said {value}, kept is {said}")
        self._true_values[said.read_id] = value
        for place, _answer in reversed(fitting):
            if self._claims.setdefault((address, said.point, place), said.read_id) == said.read_id:
                return
        report.add("twice", f"one answer of the meter became {said} and another reading")

    # -- billing

    def _check_billing_itself(self, report: Report, billing: BillingView) -> None:
        keys = Counter(said.key for said, _epoch, _ref in billing.current)
        for key, times in keys.items():
            if times > 1:
                report.add("twice", f"{times} current values of {key}")
        ids = Counter(said.read_id for said, _epoch, _ref in billing.current)
        ids.update(said.read_id for said in billing.history)
        for read_id, times in ids.items():
            if times > 1:
                report.add("twice", f"reading {read_id} stands {times} times at billing")
        for said in billing.conflicts:
            report.add("conflict", str(said))
        for gap in billing.gaps:
            report.add("gap", str(gap))
        for letter in billing.dead_letters:
            report.add("refused", str(letter))

    def _check_known(
        self,
        report: Report,
        billing: BillingView,
        everything: Mapping[str, Said],
        epochs: set[str],
    ) -> None:
        for said in [*(said for said, _epoch, _ref in billing.current), *billing.history]:
            if said.read_id not in everything:
                report.add("foreign", f"no journal ever had {said}")
        for epoch in billing.cursors.keys() - epochs:
            report.add("foreign", f"no journal ever had the epoch {epoch}")

    def _check_cursor(self, report: Report, view: JournalView, billing: BillingView) -> None:
        """The head-end never believes more to be receipted than billing has."""
        at_billing = billing.cursors.get(view.epoch, 0)
        if view.receipted > at_billing:
            report.add("cursor", f"{view.path}: {view.receipted}, billing has {at_billing}")
        is_in_use = not (view.path.parent / "through_seq").exists()
        if is_in_use and at_billing > view.last_seq:
            report.add("cursor", f"billing has {at_billing}, the journal ends at {view.last_seq}")

    def _check_acks(self, report: Report, known: Iterable[str]) -> None:
        """Whatever an append said is kept is kept."""
        known = set(known)
        acknowledged = 0
        with (self._folder / "acks.jsonl").open("rb") as file:
            for line in file:
                for read_id in json.loads(line):
                    acknowledged += 1
                    if read_id not in known:
                        report.add("ack_lost", f"{read_id} was acknowledged and is in no journal")
        report.counts["appends_acknowledged"] = acknowledged

    def _check_bytes(
        self, report: Report, views: Iterable[JournalView], billing: BillingView
    ) -> None:
        """Billing can show the bytes of every billing value it has."""
        replies: dict[str, bytes | None] = {}
        for view in views:
            for kept in view.readings.values():
                if kept.kind == BILLING_KIND and kept.xid in view.attempts:
                    replies[kept.said.read_id] = view.attempts[kept.xid].reply
        for said, epoch, ref in billing.current:
            expected = replies.get(said.read_id)
            if expected is None:
                continue
            shown = billing.replies.get((epoch, ref or ""))
            if shown is None or bytes.fromhex(shown) != expected:
                report.add("bytes", f"billing shows {shown} for {said}, sent was {expected.hex()}")

    def _check_differences(self, report: Report, billing: BillingView) -> None:
        """Registers never fall, and their steps add up to what the meter counted."""
        series: dict[tuple[str, str], list[Said]] = defaultdict(list)
        for said, _epoch, _ref in billing.current:
            if said.point.startswith(REGISTERS) and not said.point.startswith(NO_REGISTERS):
                series[said.meter, said.point].append(said)
        for (meter, point), steps in series.items():
            steps.sort(key=lambda said: (said.time_ms, said.revision))
            values = [Decimal(said.value) for said in steps if said.value is not None]
            added = [late - early for early, late in itertools.pairwise(values)]
            if any(step < 0 for step in added):
                report.add("difference", f"{meter} {point} falls")
            ends = [self._true_values.get(steps[i].read_id) for i in (0, -1)]
            if None in ends or Decimal(ends[1]) - Decimal(ends[0]) != sum(added):  # type: ignore[arg-type]
                report.add("difference", f"{meter} {point} adds up to {sum(added)}, truth {ends}")

    def _count(
        self,
        views: list[JournalView],
        billing: BillingView,
        everything: Mapping[str, Said],
        must: set[str],
    ) -> dict[str, int]:
        dropped = 0
        takes = self._folder / "takes.jsonl"
        if takes.exists():
            dropped = sum(json.loads(line)["known"] for line in takes.read_text().splitlines())
        return {
            "served_by_meters": self._truth.served,
            "in_journals": len(everything),
            "must_be_at_billing": len(must),
            "at_billing": len(billing.current),
            "held": sum(said.verdict == HELD for said in everything.values()),
            "records_receipted": sum(billing.cursors.values()),
            "duplicates_dropped": dropped,
            "epochs": len({epoch for view in views for epoch in view.epochs}),
            "billing_alarms": sum(billing.alarms.values()),
        }


def _must(view: JournalView, through_seq: int, billing: BillingView, report: Report) -> set[str]:
    """The readings of a journal that billing must have; events are looked up at once."""
    waiting: set[tuple[int, int]] = set()
    for seq, kind, rid, n in view.stream:
        if kind == EVENTS_KIND:
            if seq <= through_seq and view.events.get(rid) not in billing.events:
                report.add("missing", f"event {view.events.get(rid)} of {view.path}")
        elif seq > through_seq:
            waiting.update((kind, one) for one in range(rid, rid + n))
    return {
        kept.said.read_id
        for place, kept in view.readings.items()
        if kept.said.verdict != HELD and place not in waiting
    }


def _check_stream(report: Report, view: JournalView) -> None:
    """No holes; every published reading once, unless it was receipted in an earlier epoch."""
    seqs = [seq for seq, _kind, _rid, _n in view.stream]
    if seqs and seqs != list(range(seqs[0], view.last_seq + 1)):
        report.add(
            "hole", f"{view.path}: the stream does not run from {seqs[0]} to {view.last_seq}"
        )
    if seqs and seqs[0] > 1:
        report.add("hole", f"{view.path}: the stream begins at {seqs[0]}")
    times: Counter[tuple[int, int]] = Counter()
    for seq, kind, rid, n in view.stream:
        if kind == EVENTS_KIND:
            if rid not in view.events:
                report.add("hole", f"{view.path}: record {seq} is an event that is not there")
            continue
        for one in range(rid, rid + n):
            times[kind, one] += 1
            if (kind, one) not in view.readings:
                report.add("hole", f"{view.path}: record {seq} is a reading that is not there")
    for place, kept in view.readings.items():
        expected = kept.said.verdict != HELD
        if times[place] > 1 or (times[place] == 1) > expected:
            report.add("twice", f"{view.path}: {times[place]} records of {kept.said}")
        if expected and not times[place] and len(view.epochs) == 1:
            report.add("hole", f"{view.path}: no record of {kept.said}")


def _check_keys(report: Report, view: JournalView) -> None:
    """One row a key and revision; one reading a point and exchange, unless it was revised."""
    revisions = Counter((k.said.key, k.said.revision) for k in view.readings.values())
    for key, times in revisions.items():
        if times > 1:
            report.add("twice", f"{view.path}: {times} readings of {key}")
    born = defaultdict(set)
    for kept in view.readings.values():
        born[kept.xid, kept.said.point].add(kept.said.key)
    for (xid, point), keys in born.items():
        if len(keys) > 1:
            report.add("twice", f"{view.path}: exchange {xid} gave {point} of {sorted(keys)}")


def _check_due(report: Report, view: JournalView) -> None:
    """A due point is settled by one reading that is there; a reading for it settles it."""
    by_due: dict[tuple[str, str, int], list[Said]] = defaultdict(list)
    for kept in view.readings.values():
        if kept.said.due_ms is not None and kept.said.verdict != HELD:
            by_due[kept.said.meter, kept.said.point, kept.said.due_ms].append(kept.said)
    for due, (state, read_id) in view.due.items():
        ids = {said.read_id for said in by_due.get(due, ())}
        if state in SETTLED and read_id not in ids:
            report.add("due", f"{view.path}: {due} is settled by {read_id}, which is not there")
        if state not in SETTLED and ids:
            report.add("due", f"{view.path}: {due} is open and has {ids}")
    for due, readings in by_due.items():
        if len({said.key for said in readings}) > 1:
            report.add("twice", f"{view.path}: {len(readings)} readings for {due}")
