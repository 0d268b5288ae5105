"""`headend billing`: the consumer process, and looking into its database."""

import argparse
import asyncio
import logging
import signal
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from functools import partial
from typing import Any

from headend import __version__
from headend.billing.consumer import BillingConsumer
from headend.billing.differences import DIRECTIONS, Difference, Part, Stand
from headend.billing.errors import BillingDatabaseError
from headend.billing.inbox import Row
from headend.billing.spec import configured_database
from headend.billing.store import Store
from headend.billing.store_thread import open_store
from headend.billing.views import BillingView
from headend.cli import billing_backup
from headend.cli.output import add_config, add_json, clean, print_json, say, table
from headend.cli.run import add_log, service_manager
from headend.config import Config, load_config
from headend.domain.clock import SystemClock, iso
from headend.domain.due import day_bounds_ms
from headend.domain.errors import ConfigError
from headend.logs import StormLimit, keep_ticking, logging_to
from headend.messages.configured import configured_broker
from headend.notify import Steps, Watchdog
from headend.supervisor import Supervisor
from protocols.quantities import quantity

log = logging.getLogger(__name__)

SHORT_ID_CHARS = 12
DAY_MS = 86_400_000
NEAR_ID_CHARS_MIN = 6
# The longest pause between two tries is half a minute; a transaction takes seconds.
STEP_S_MAX = 300.0
NO_RELOAD = "SIGHUP: billing takes no other configuration while it runs; restart it instead"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    run_ = actions.add_parser("run", help="take the feed into billing's database")
    add_config(run_)
    add_log(run_)
    show = actions.add_parser("show", help="register differences per service point and day")
    add_config(show)
    show.add_argument("--day", type=_day, metavar="D", help="one local day, such as 2026-01-31")
    show.add_argument("--span", action="store_true", help="from the first to the last reading")
    show.add_argument("--service-point", metavar="S", help="only this one")
    add_json(show)
    readings = actions.add_parser("readings", help="current values as billing holds them")
    add_config(readings)
    readings.add_argument("--meter", metavar="M")
    readings.add_argument("--point", metavar="P")
    readings.add_argument("--service-point", metavar="S")
    add_json(readings)
    frames = actions.add_parser("bytes", help="the raw frames a reading came from")
    frames.add_argument("read_id", metavar="READ_ID", type=_read_id, help="or its beginning")
    add_config(frames)
    add_json(frames)
    status = actions.add_parser("status", help="cursors, alarms, gaps and refused messages")
    add_config(status)
    add_json(status)
    billing_backup.add_arguments(actions)


def run(args: argparse.Namespace) -> int:
    """Run the chosen action."""
    if args.action == "run":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is a log to say so
    config = load_config(args.config)
    if config.billing is None:
        raise ConfigError("there is no billing section", file=args.config, key="billing")
    if args.action == "run":
        return _run_consumer(config, args)
    if args.action in billing_backup.ACTIONS:
        return billing_backup.run(args, config)
    with BillingView(configured_database(config)) as view:
        if args.action == "show":
            return _show(args, config, view)
        if args.action == "readings":
            return _readings(args, view)
        if args.action == "bytes":
            return _bytes(args, view)
        return _status(args, view)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        msg = f"{text!r} is not a day such as 2026-01-31"
        raise argparse.ArgumentTypeError(msg) from None


def _read_id(text: str) -> str:
    lower = text.lower()
    if len(lower) < NEAR_ID_CHARS_MIN or set(lower) - set("0123456789abcdef"):
        msg = f"{text!r} is not a reading id (at least {NEAR_ID_CHARS_MIN} hex digits of it)"
        raise argparse.ArgumentTypeError(msg)
    return lower


# --- run -------------------------------------------------------------------------------------


def _run_consumer(config: Config, args: argparse.Namespace) -> int:
    with logging_to(level=args.log, style=args.log_format) as limit:
        return asyncio.run(_consume(config, limit))


async def _consume(config: Config, limit: StormLimit) -> int:
    """Until SIGTERM or Ctrl-C; both end it cleanly. A database that is damaged ends it too."""
    section = config.billing
    assert section is not None
    database = configured_database(config)
    broker = configured_broker(config, for_billing=True)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    keep_ticking(limit, loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, log.warning, NO_RELOAD)
    clock = SystemClock()
    notifier = service_manager()
    store: Store | None = None
    consumer: BillingConsumer | None = None
    waiting = f"{section.name}: waiting for the database"
    watchdog = Watchdog(
        notifier,
        tasks=lambda: {"billing": Steps(consumer.steps, STEP_S_MAX)} if consumer else {},
        status=lambda: consumer.status_line if consumer else waiting,
        clock=clock,
    )
    try:
        async with Supervisor(fatal=(BillingDatabaseError,)) as supervisor:
            supervisor.start("watchdog", watchdog.run)
            make = partial(
                Store,
                database,
                name=section.name,
                clock=clock,
                software=f"headend {__version__}",
            )
            # What is away is no reason to be ended: it works as soon as that is back.
            store = await open_store(
                make, stop=stop, name=section.name, on_away=partial(notifier.ready, waiting)
            )
            if store is not None:
                consumer = BillingConsumer(
                    broker=broker,
                    store=store,
                    name=section.name,
                    headends=section.headends,
                    clock=clock,
                    on_ready=_announcement(f"READY billing {section.name} on {broker.name}"),
                )
                supervisor.start("billing", consumer.run)
                notifier.ready(consumer.status_line)
                await supervisor.run_until(stop)
            notifier.stopping()
    finally:
        if consumer is not None:
            await consumer.close()
        if store is not None:
            await asyncio.to_thread(store.close)
    return 0


def _announcement(text: str) -> Callable[[], None]:
    """Says it once, however often it is called."""
    rest = iter((text,))

    def announce() -> None:
        for line in rest:
            say(line)

    return announce


# --- show ------------------------------------------------------------------------------------


def _show(args: argparse.Namespace, config: Config, view: BillingView) -> int:
    names = [args.service_point] if args.service_point else view.service_points()
    found = list(_differences(args, config, view, names))
    if args.json:
        for difference in found:
            print_json(difference_json(difference))
        return 0
    if not found:
        say("nothing to show: no register at the beginning or the end of a day (--span shows more)")
        return 0
    headers = ("service point", "day", "direction", "energy", "unit", "from", "to", "stands on")
    print(table(headers, map(_difference_line, found), right=frozenset({3})))
    return 0


def _differences(
    args: argparse.Namespace, config: Config, view: BillingView, names: Iterable[str]
) -> Iterator[Difference]:
    for name in names:
        if args.span:
            point = view.service_point(name)
            yield from (point.span(direction) for direction in DIRECTIONS)
            continue
        if args.day is not None:
            first, last = day_bounds_ms(args.day, config.zone)
            # A register read for a boundary may hold for an instant beside it.
            point = view.service_point(name, from_ms=first - DAY_MS, to_ms=last + DAY_MS)
            days = [args.day]
        else:
            point = view.service_point(name)
            days = point.days(config.zone)
        for day in days:
            yield from (point.day(day, config.zone, direction) for direction in DIRECTIONS)


def difference_json(difference: Difference) -> dict[str, Any]:
    """A difference as `billing_difference/1`."""
    d = difference
    return {
        "schema": "billing_difference/1",
        "service_point": d.service_point,
        "day": None if d.day is None else d.day.isoformat(),
        "direction": d.direction,
        "point": d.point,
        "from": iso(d.from_ms) if d.parts or d.day else None,
        "to": iso(d.to_ms) if d.parts or d.day else None,
        "energy": None if d.energy is None else format(d.energy, "f"),
        "unit": d.unit,
        "reason": d.reason,
        "statuses": list(d.statuses),
        "sources": list(d.sources),
        "parts": [_part_json(part) for part in d.parts],
    }


def _part_json(part: Part) -> dict[str, Any]:
    return {
        "meter": part.start.meter,
        "start": _stand_json(part.start),
        "end": _stand_json(part.end),
        "factor": format(part.factor, "f"),
        "energy": format(part.energy, "f"),
        "rollovers": list(part.rollovers),
    }


def _stand_json(stand: Stand) -> dict[str, Any]:
    return {
        "source": stand.source,
        "time": iso(stand.time_ms),
        "value": format(stand.value, "f"),
        "status": stand.status,
        "verdict": stand.verdict,
        "flags": list(stand.flags),
    }


def _difference_line(d: Difference) -> tuple[str, ...]:
    shown = "?" if d.energy is None else format(d.energy, "f")
    return (
        clean(d.service_point),
        "-" if d.day is None else d.day.isoformat(),
        d.direction,
        shown,
        d.unit,
        format(d.parts[0].start.value, "f") if d.parts else "-",
        format(d.parts[-1].end.value, "f") if d.parts else "-",
        f"unknown: {d.reason}" if d.reason else " ".join(map(_short, d.sources)),
    )


def _short(source: str) -> str:
    kind, _, name = source.rpartition(":")
    return f"{kind}:{name[:SHORT_ID_CHARS]}" if kind else name[:SHORT_ID_CHARS]


# --- readings, bytes, status -----------------------------------------------------------------


def _readings(args: argparse.Namespace, view: BillingView) -> int:
    rows = view.readings(meter=args.meter, point=args.point, service_point=args.service_point)
    if args.json:
        for row in rows:
            print_json(reading_json(row))
        return 0
    headers = ("meter", "point", "value", "unit", "time", "status", "verdict", "revision", "id")
    print(table(headers, map(_reading_line, rows), right=frozenset({2, 7})))
    return 0


def reading_json(row: Row) -> dict[str, Any]:
    """A current value as `billing_reading/1`: the feed's read record, and where it came from."""
    return {
        "schema": "billing_reading/1",
        "read_id": row.read_id,
        "meter": row.meter,
        "service_point": row.service_point,
        "point": row.point,
        "obis": _obis(row.point),
        "value": row.value,
        "unit": row.unit,
        "time": iso(row.time_ms),
        "interval_s": row.interval_s or None,
        "received_at": iso(row.received_ms),
        "due_at": None if row.due_ms is None else iso(row.due_ms),
        "status": row.status,
        "verdict": row.verdict,
        "flags": row.flags.split(",") if row.flags else [],
        "revision": row.revision,
        "late": bool(row.late),
        "final": bool(row.final),
        "multiplier": row.multiplier,
        "side": row.side,
        "evidence": row.evidence,
        "headend": row.headend,
        "epoch": row.epoch,
        "seq": row.seq,
    }


def _obis(point: str) -> str | None:
    try:
        return quantity(point).obis
    except KeyError:
        return None


def _reading_line(row: Row) -> tuple[str, ...]:
    return (
        clean(row.meter),
        clean(row.point),
        "-" if row.value is None else row.value,
        row.unit,
        iso(row.time_ms),
        row.status,
        row.verdict,
        str(row.revision),
        row.read_id[:SHORT_ID_CHARS],
    )


def _bytes(args: argparse.Namespace, view: BillingView) -> int:
    found = view.find(args.read_id)
    row, frames = found.row, found.exchange
    if args.json:
        print_json(
            {
                "schema": "billing_bytes/1",
                "read_id": row.read_id,
                "current": found.is_current,
                "meter": row.meter,
                "point": row.point,
                "value": row.value,
                "time": iso(row.time_ms),
                "headend": row.headend,
                "epoch": row.epoch,
                "evidence": row.evidence,
                "request": None if frames is None else frames.request,
                "reply": None if frames is None else frames.reply,
                "bus": None if frames is None else frames.bus,
                "received_at": None if frames is None else iso(frames.received_ms),
                "attempts": None if frames is None else frames.attempts,
                "software": None if frames is None else frames.software,
            }
        )
        return 0 if frames is not None else 1
    value = "no value" if row.value is None else f"{row.value} {row.unit}"
    print(f"{row.read_id}  {clean(row.meter)} {clean(row.point)} = {value} for {iso(row.time_ms)}")
    if frames is None:
        say("the head-end sent no frames with this reading")
        return 1
    print(f"bus      {clean(frames.bus)}, {iso(frames.received_ms)}, attempt {frames.attempts}")
    print(f"software {clean(frames.software)} at {row.headend}")
    print(f"request  {_spaced(frames.request)}")
    print(f"reply    {_spaced(frames.reply or '')}")
    return 0


def _spaced(text: str) -> str:
    return " ".join(text[i : i + 2] for i in range(0, len(text), 2))


def _status(args: argparse.Namespace, view: BillingView) -> int:
    found = view.status()
    if args.json:
        print_json({"schema": "billing_status/1", **found})
        return 0
    print(table(("what", "how many"), [(k, str(v)) for k, v in found["counts"].items()]))
    for name, columns in (
        ("cursors", ("headend", "epoch", "through_seq")),
        ("gaps", ("headend", "first_seq", "last_seq", "reason")),
        ("alarms", ("headend", "kind", "subject", "detail", "times")),
        ("dead_letters", ("headend", "code", "reason", "size", "times")),
    ):
        if found[name]:
            print()
            print(table(columns, [[clean(str(row[c])) for c in columns] for row in found[name]]))
    return 0
