"""The pages: facts and words into HTML. Runs in a thread; touches nothing of the daemon.

Every value is escaped by the templates. What a page needs beside the facts is computed here, so
that templates only lay out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

import jinja2

from headend.bus import BOUNDS_S, BusState
from headend.domain.clock import from_iso
from headend.domain.due import DueState
from headend.domain.exchange import Outcome
from headend.status.curves import HEIGHT, LEFT, RIGHT, TOP, WIDTH, by_hour, draw, scale_top
from headend.status.facts import BusFacts, Facts, MeterFacts, MeterState
from headend.status.gather import EXPORT, IMPORT, YIELD
from headend.status.glance import glance
from headend.status.listing import PAGE_BUSES, TROUBLE, Query, listing, paged
from headend.status.meter import MeterPast, days_to_choose
from headend.status.words import HTML_LANGUAGE, LANGUAGES, Language, Words

REFRESH_S = (10, 30, 60, 300)
TROUBLES_SHOWN_MAX = 10
ALARMS_SHOWN_MAX = 200
NAVIGATION = (
    ("overview", "/"), ("meters", "/meters"), ("buses", "/buses"), ("due", "/due"),
    ("delivery", "/delivery"), ("alarms", "/alarms"),
)  # fmt: skip
DAMAGE = ("checksum", "parity", "end", "incomplete", "dirt", "overflow")
DIRECTIONS = ((IMPORT, "import"), (EXPORT, "export"), (YIELD, "yield"))


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a request every page depends on. `path` and `query` as asked, for links to itself."""

    path: str
    query: Mapping[str, str]
    language: Language
    chosen: Language | None  # the language, when the URL says so
    refresh_s: int | None

    def url(self, path: str | None = None, /, **parameters: object) -> str:
        """A link that keeps language and reloading. A parameter of None or "" is left out."""
        asked: dict[str, object] = {"lang": self.chosen, "refresh": self.refresh_s, **parameters}
        kept = {k: v for k, v in asked.items() if v not in (None, "")}
        place = quote(self.path if path is None else path, safe="/")
        return f"{place}?{urlencode(kept)}" if kept else place

    def again(self, **changed: object) -> str:
        """A link to this very page, with something changed."""
        own = {k: v for k, v in self.query.items() if k not in ("lang", "refresh")}
        return self.url(None, **{**own, **changed})


def refresh_of(query: Mapping[str, str]) -> int | None:
    """After how many seconds the page is to be loaded again; None: not at all."""
    return next((s for s in REFRESH_S if str(s) == query.get("refresh")), None)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("headend.status", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def render(
    template: str, asked: Asked, words: Words, facts: Facts | None, **values: object
) -> bytes:
    """A page."""
    text = (
        _environment()
        .get_template(template)
        .render(
            asked=asked,
            parts=_environment().get_template("parts.html").module,
            w=words,
            say=words.say,
            facts=facts,
            html_language=HTML_LANGUAGE[words.language],
            languages=LANGUAGES,
            navigation=NAVIGATION,
            refresh_s=REFRESH_S[1],
            **values,
        )
    )
    return text.encode()


def overview(facts: Facts, asked: Asked, words: Words) -> bytes:
    """Is everything well, and where to look."""
    troubled = [meter for meter in facts.meters if meter.state in TROUBLE]
    return render(
        "overview.html", asked, words, facts,
        here="overview",
        buses=_most_telling(facts),
        glance=glance(facts, words),
        causes=[alarm for alarm in facts.kept.alarms if alarm.under is None][:TROUBLES_SHOWN_MAX],
        troubled=troubled[:TROUBLES_SHOWN_MAX],
        troubled_count=len(troubled),
        days=_days(facts),
        bus_state=_bus_states,
        meter_level=_meter_level,
        MeterState=MeterState,
        DueState=DueState,
    )  # fmt: skip


def meters(facts: Facts, asked: Asked, words: Words) -> bytes:
    """The meters, a page at a time."""
    query = Query.of(asked.query)
    found = listing(facts.meters, query)
    return render(
        "meters.html", asked, words, facts,
        here="meters",
        query=query,
        listing=found,
        has_yield=any(meter.energy_yield is not None for meter in found.rows),
        states=("trouble", *(state.value for state in MeterState)),
        buses=sorted(bus.name for bus in facts.buses),
        meter_level=_meter_level,
    )  # fmt: skip


def meter(
    facts: Facts, asked: Asked, words: Words, one: MeterFacts, past: MeterPast | None,
    trouble: str | None, today: date,
) -> bytes:  # fmt: skip
    """One meter: its registers, its day, its newest readings."""
    return render(
        "meter.html", asked, words, facts,
        here="meters",
        meter=one,
        goods=[
            (point, name, good)
            for (point, name), good in zip(
                DIRECTIONS, (one.energy_import, one.energy_export, one.energy_yield), strict=True
            )
            if good is not None
        ],
        past=past,
        trouble=trouble,
        pictures=[] if past is None else _pictures(past, words),
        box=(WIDTH, HEIGHT, LEFT, RIGHT, TOP),
        choices=days_to_choose(today),
        meter_level=_meter_level,
        from_iso=from_iso,
    )  # fmt: skip


def buses(facts: Facts, asked: Asked, words: Words) -> bytes:
    """The buses with their load, answer times and counters, a page at a time."""
    shown, page, pages = paged(facts.buses, Query.of(asked.query).page, PAGE_BUSES)
    return render(
        "buses.html", asked, words, facts,
        here="buses",
        buses=list(enumerate(shown, (page - 1) * PAGE_BUSES + 1)),
        page=page,
        pages=pages,
        bus_state=_bus_states,
        MeterState=MeterState,
        histogram=_histogram,
        outcomes=tuple(Outcome),
        damage=DAMAGE,
    )  # fmt: skip


def due(facts: Facts, asked: Asked, words: Words) -> bytes:
    """What was due today and yesterday, and what became of it."""
    return render("due.html", asked, words, facts, here="due", days=_days(facts), DueState=DueState)


def delivery(facts: Facts, asked: Asked, words: Words) -> bytes:
    """The feed, the databases for charts, the journal, tasks."""
    return render("delivery.html", asked, words, facts, here="delivery")


def alarms(facts: Facts, asked: Asked, words: Words) -> bytes:
    """The alarms that stand, and what happened."""
    return render(
        "alarms.html", asked, words, facts,
        here="alarms",
        standing=facts.kept.alarms[:ALARMS_SHOWN_MAX],
        told=facts.kept.told[:ALARMS_SHOWN_MAX],
    )  # fmt: skip


def problem(asked: Asked, words: Words, text: str) -> bytes:
    """Why a page is not shown."""
    return render("problem.html", asked, words, None, here="", text=text)


# -- what templates need


def _most_telling(facts: Facts) -> list[tuple[int, int, BusFacts]]:
    """The buses of the overview, each with its number and the page it stands on.

    All of them, in their order; when there are many, those that are not well first.
    """
    numbered = [(n + 1, n // PAGE_BUSES + 1, bus) for n, bus in enumerate(facts.buses)]
    if len(numbered) > PAGE_BUSES:
        numbered.sort(key=lambda entry: _is_well(entry[2]))
    return numbered[:PAGE_BUSES]


def _is_well(bus: BusFacts) -> bool:
    in_trouble = any(bus.states.get(state, 0) for state in TROUBLE)
    return bus.statistics.state is BusState.OPEN and not in_trouble


def _days(facts: Facts) -> list[tuple[str, Any]]:
    return [("today", facts.kept.today), ("yesterday", facts.kept.yesterday)]


def _bus_states(bus: BusFacts) -> tuple[str, str]:
    """Level and word of a bus's port."""
    state = bus.statistics.state
    level = {BusState.OPEN: "ok", BusState.OPENING: "unknown"}.get(state, "bad")
    return level, f"b_{state.value}"


def _meter_level(state: MeterState) -> str:
    return {
        MeterState.ANSWERS: "ok",
        MeterState.FAILING: "watch",
        MeterState.SILENT: "bad",
        MeterState.NO_PORT: "bad",
        MeterState.NOT_ASKED: "unknown",
    }[state]


def _histogram(bus: BusFacts) -> list[tuple[float | None, int, float]]:
    """Bound (None: above the last), count, and the bar's part of the highest one."""
    counts = bus.statistics.latency.counts
    top = max(counts) or 1
    return [(b, n, n / top) for b, n in zip((*BOUNDS_S, None), counts, strict=True)]


def _pictures(past: MeterPast, words: Words) -> list[dict[str, Any]]:
    """A picture for each direction that has readings, all with the same scale."""
    day = past.day
    top_kw = scale_top(
        max((c.peak.kw for c in day.curves.values() if c.peak is not None), default=0.0)
    )
    ticks = _ticks(day.span_ms, words)
    shown = []
    for point, name in DIRECTIONS:
        curve = day.curves.get(point)
        if curve is None:
            continue
        shown.append(
            {
                "name": name,
                "curve": curve,
                "drawing": draw(curve, day.span_ms, ticks, top_kw),
                "hours": [h for h in by_hour(curve, day.span_ms) if h.energy is not None],
            }
        )
    return shown


def _ticks(span_ms: tuple[int, int], words: Words) -> list[int]:
    """Every sixth local hour, on days of 23 and 25 hours too."""
    hours = range(span_ms[0], span_ms[1] + 1, 3_600_000)
    return [at for at in hours if words.local(at).hour % 6 == 0]
