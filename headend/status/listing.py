"""The list of meters: filtered, sorted, and a page at a time. Pure; questions come from a URL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from headend.status.facts import MeterFacts, MeterState

PAGE_ROWS = 50
PAGE_BUSES = 40
TEXT_CHARS_MAX = 64
T = TypeVar("T")

TROUBLE = frozenset({MeterState.FAILING, MeterState.SILENT, MeterState.NO_PORT})


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for. Anything a URL may say becomes one: what is not understood is nothing."""

    text: str = ""
    state: str = ""
    bus: str = ""
    page: int = 1

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> "Query":
        """From the query part of a URL."""
        state = asked.get("state", "")
        known = {"trouble", *(s.value for s in MeterState)}
        number = asked.get("page", "1")
        page = int(number) if number.isascii() and number.isdecimal() and len(number) < 7 else 1
        return cls(
            text=asked.get("q", "").strip()[:TEXT_CHARS_MAX],
            state=state if state in known else "",
            bus=asked.get("bus", "")[:TEXT_CHARS_MAX],
            page=max(1, page),
        )

    @property
    def is_narrow(self) -> bool:
        """Whether anything is left out."""
        return bool(self.text or self.state or self.bus)

    def parameters(self) -> dict[str, str]:
        """As the query part of a URL, without the page."""
        asked = {"q": self.text, "state": self.state, "bus": self.bus}
        return {name: value for name, value in asked.items() if value}


@dataclass(frozen=True, slots=True)
class Listing:
    """One page. `count`: meters that are like that, of all `total`."""

    rows: Sequence[MeterFacts]
    count: int
    total: int
    page: int
    pages: int


def listing(meters: Sequence[MeterFacts], query: Query) -> Listing:
    """The page that is asked for; the last one when it is beyond the end."""
    text = query.text.casefold()
    found = [
        meter
        for meter in meters
        if (not query.bus or meter.bus == query.bus)
        and _is_in(meter.state, query.state)
        and (not text or text in f"{meter.id}\n{meter.service_point}\n{meter.address}".casefold())
    ]
    rows, page, pages = paged(found, query.page, PAGE_ROWS)
    return Listing(rows, len(found), len(meters), page, pages)


def paged(rows: Sequence[T], page: int, size: int) -> tuple[Sequence[T], int, int]:
    """Rows of a page, the page (the last one when it is beyond the end), and how many there are."""
    pages = max(1, -(-len(rows) // size))
    page = min(max(1, page), pages)
    return rows[(page - 1) * size : page * size], page, pages


def _is_in(state: MeterState, wanted: str) -> bool:
    if wanted == "trouble":
        return state in TROUBLE
    return not wanted or state == wanted
