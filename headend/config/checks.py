"""What no section can see by itself: names that point at each other, things given twice."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from headend.config.credentials import credential_name
from headend.config.meter_rules import MODBUS
from headend.config.meters import MeterList
from headend.config.secret_files import FileFault, check_private, client_context
from headend.config.sections.billing import BillingSection
from headend.config.sections.buses import BusSection
from headend.config.sections.feed import FeedSection
from headend.config.sections.headend import HeadendSection
from headend.config.sections.identity import BrokerIdentity
from headend.config.sections.plans import PlanSection
from headend.config.tree import Key, MarkedList, MarkedMap, error_at
from headend.config.validate import nearest
from headend.domain.errors import ConfigError
from headend.domain.link import ModbusTcpSpec, SerialSpec, TcpSpec
from protocols.dlt645.catalogue import freeze_di
from protocols.quantities import all_quantities


def check_buses(
    buses: Mapping[str, BusSection], root: MarkedMap, errors: list[ConfigError]
) -> None:
    """Links of kinds that exist; two buses cannot share one port, for a port has one owner."""
    owner: dict[object, str] = {}
    for name, bus in buses.items():
        spec = bus.link_spec
        place = spec.path if isinstance(spec, SerialSpec) else (spec.host, spec.port)
        if not isinstance(spec, SerialSpec | TcpSpec | ModbusTcpSpec):
            message = f"{bus.link.partition(':')[0]} links are not available in this version"
            hint = "available: serial://, tcp://, modbus-tcp://"
            errors.append(error_at(root, ["buses", name, "link"], message, hint))
            continue
        first = owner.setdefault(place, name)
        if first != name:
            message = f"goes to the same port as bus {first}"
            hint = f"meters on one port belong to one bus: move them to {first}"
            errors.append(error_at(root, ["buses", name, "link"], message, hint))


def check_plans(
    plans: Mapping[str, PlanSection], root: MarkedMap, errors: list[ConfigError]
) -> None:
    """Every point of every plan must exist; one from the freeze must be in the freeze."""
    known = [q.name for q in all_quantities()]
    for name, plan in plans.items():
        if plan.daily is not None:
            loc: list[Key] = ["plans", name, "daily", "points"]
            _check_points(plan.daily.points, loc, known, root, errors)
            if plan.daily.origin == "freeze":
                for index, point in enumerate(plan.daily.points):
                    if point in known and not _in_freeze(point):
                        message = f"{point} is not in the meter's daily freeze"
                        hint = "a freeze holds energy totals, tariffs and demands; use from: live"
                        errors.append(error_at(root, [*loc, index], message, hint))
        for index, line in enumerate(plan.every):
            loc = ["plans", name, "every", index, "points"]
            _check_points(line.points, loc, known, root, errors)


def _in_freeze(point: str) -> bool:
    try:
        freeze_di(point)
    except KeyError:
        return False
    return True


def _check_points(
    points: Sequence[str],
    loc: Sequence[Key],
    known: Sequence[str],
    root: MarkedMap,
    errors: list[ConfigError],
) -> None:
    for index, point in enumerate(points):
        if point not in known:
            message = f"there is no point {point}"
            errors.append(error_at(root, [*loc, index], message, nearest(point, known)))


def check_meters(
    found: MeterList,
    buses: Iterable[str],
    plans: Iterable[str],
    root: MarkedMap,
    errors: list[ConfigError],
) -> None:
    """Ids and addresses stand once; buses and plans exist.

    Buses and plans with errors of their own count as known. Names are looked up for meters with
    errors of their own too, so that everything is told at once.
    """
    _check_names(root, "bus", list(buses), errors)
    _check_names(root, "plan", sorted(plans), errors)
    _check_unique(found, root, errors)


def _check_names(
    root: MarkedMap, key: str, known: Sequence[str], errors: list[ConfigError]
) -> None:
    entries = root.get("meters")
    if not isinstance(entries, MarkedList):
        return
    names = set(known)
    for index, entry in enumerate(entries):
        name = entry.get(key) if isinstance(entry, MarkedMap) else None
        if isinstance(name, str) and name not in names:
            message = f"there is no {key} {name}"
            errors.append(error_at(root, ["meters", index, key], message, nearest(name, known)))


def _check_unique(found: MeterList, root: MarkedMap, errors: list[ConfigError]) -> None:
    first_id: dict[str, int] = {}
    first_address: dict[tuple[str, str, str], int] = {}
    for meter, index in zip(found.meters, found.indexes, strict=True):
        loc: list[Key] = ["meters", index]
        if first_id.setdefault(meter.id, index) != index:
            message = f"the id {meter.id} is taken by meters[{first_id[meter.id]}]"
            errors.append(error_at(root, [*loc, "id"], message, "an asset id names one meter"))
        place = (meter.bus, meter.protocol, meter.address)
        if first_address.setdefault(place, index) != index:
            key = "unit" if meter.protocol in MODBUS else "address"
            message = (
                f"the {key} {meter.address} on bus {meter.bus} is taken by "
                f"meters[{first_address[place]}]"
            )
            hint = f"two meters with one {key} would answer at once"
            errors.append(error_at(root, [*loc, key], message, hint))


def check_feed(
    feed: FeedSection | None,
    billing: BillingSection | None,
    head: HeadendSection | None,
    root: MarkedMap,
    errors: list[ConfigError],
) -> None:
    """Consumers stand once, and a billing of this head-end is one of them."""
    if feed is None:
        return
    names = [consumer.name for consumer in feed.consumers]
    for index, name in enumerate(names):
        if name in names[:index]:
            message = f"the consumer {name} stands there twice"
            errors.append(error_at(root, ["feed", "consumers", index, "name"], message))
    if billing is None or head is None or head.name not in billing.headends or not names:
        return
    if billing.name not in names:
        message = f"the feed has no consumer {billing.name}, so billing would get nothing"
        errors.append(error_at(root, ["billing", "name"], message, nearest(billing.name, names)))


def check_files(
    files: Iterable[tuple[Sequence[Key], Path | None]],
    base: Path,
    root: MarkedMap,
    errors: list[ConfigError],
) -> None:
    """Files that the configuration points at must be there.

    Whether a credential is there only the service knows that it is handed to.
    """
    for loc, path in files:
        try:
            is_elsewhere = path is None or credential_name(path) is not None
        except ConfigError as error:
            errors.append(error_at(root, loc, error.message, error.hint))
            continue
        if path is not None and not is_elsewhere and not (base / path).is_file():
            message = f"there is no file {base / path}"
            errors.append(error_at(root, loc, message, "paths are relative to this file"))


def check_identities(
    feed: FeedSection | None,
    billing: BillingSection | None,
    base: Path,
    root: MarkedMap,
    errors: list[ConfigError],
) -> None:
    """Both ends' certificates fit their keys, and secrets are not open to everybody.

    A file that only the other end's user may read is left to that process: it looks again when it
    starts. Files that are not there are told by `check_files`.
    """
    if feed is None:
        return
    _check_identity(feed, feed, ["feed"], base, root, errors)
    if billing is not None and billing.broker is not None:
        _check_identity(billing.broker, feed, ["billing", "broker"], base, root, errors)


def _check_identity(
    who: BrokerIdentity,
    feed: FeedSection,
    loc: Sequence[Key],
    base: Path,
    root: MarkedMap,
    errors: list[ConfigError],
) -> None:
    if who.password_file is not None and (base / who.password_file).is_file():
        with _told(loc, root, errors):
            check_private(base / who.password_file, "password_file")
    given = {key: getattr(who, key) for key in ("cert_file", "key_file")}
    if who is feed:
        # The authorities stand in `feed` for both ends and are looked at once, there.
        given["ca_file"] = feed.ca_file
    paths = {key: base / path for key, path in given.items() if path is not None}
    if not feed.broker_spec.tls:
        for key in paths:
            message = f"certificates are not used with {feed.broker}"
            hint = "mqtts://host:port, or leave it out"
            errors.append(error_at(root, [*loc, key], message, hint))
    elif all(path.is_file() for path in paths.values()):
        with _told(loc, root, errors):
            client_context(paths.get("ca_file"), paths.get("cert_file"), paths.get("key_file"))


@contextmanager
def _told(loc: Sequence[Key], root: MarkedMap, errors: list[ConfigError]) -> Iterator[None]:
    try:
        yield
    except FileFault as fault:
        if not fault.is_private:
            message = f"{fault.path} {fault.message}"
            errors.append(error_at(root, [*loc, fault.key], message, fault.hint))
