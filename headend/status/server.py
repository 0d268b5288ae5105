"""Serves the status page, the metrics and the health of the daemon over HTTP. Read only.

One supervised task. A port that cannot be had is tried again; meters are read all the same. The
work of a request is bounded: facts are gathered once for all who ask, the journal is read by a few
threads with a time limit, pages are made in a thread, and beyond REQUESTS_MAX at once there is a
503.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from functools import partial
from importlib.resources import files
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from headend import __version__
from headend.bus import BusState
from headend.config.sections.status import StatusSection
from headend.domain.clock import iso
from headend.domain.due import local_day
from headend.domain.errors import JournalError
from headend.status import pages
from headend.status.access import METHODS, SECURITY_HEADERS, host_is_ours
from headend.status.alarms import clean
from headend.status.desk import Desk
from headend.status.facts import Facts
from headend.status.gather import Daemon, Gatherer
from headend.status.meter import meter_past
from headend.status.metrics import CONTENT_TYPE, exposition
from headend.status.pulse import Pulse
from headend.status.words import LANGUAGES, Words, preferred

log = logging.getLogger(__name__)

REQUESTS_MAX = 8  # worked on at once
CONNECTIONS_MAX = 64
CONNECTION_S_MAX = 120.0
SWEEP_S = 15.0
REQUEST_S_MAX = 10.0
REBIND_S = 10.0
KEEP_ALIVE_S = 15.0
DAYS_BACK_MAX = 400
METER_FRESH_S = 5.0
HTML = "text/html"
SCHEMA_HEALTH = "healthz/1"

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Page = Callable[[Facts, pages.Asked, Words], bytes]


class StatusServer:
    """The supervised task `run` of a daemon whose configuration has a section `status`."""

    def __init__(self, daemon: Daemon, section: StatusSection) -> None:
        self._daemon = daemon
        self._section = section
        self._pulse = Pulse(daemon.clock, lambda: daemon.buses)
        self._desk: Desk | None = None
        self._gatherer: Gatherer | None = None
        self._renderer: ThreadPoolExecutor | None = None
        self._working = 0
        self._is_told = False  # that the port cannot be had
        self.listening = asyncio.Event()
        self.address: tuple[str, int] | None = None

    async def run(self) -> None:
        """Serve until cancelled."""
        daemon = self._daemon
        self._desk = Desk(daemon.journal.path, daemon.clock)
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="status-pages")
        self._gatherer = Gatherer(daemon, self._desk, self._pulse)
        daemon.journal.on_append(self._gatherer.appended)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pulse.run())
                group.create_task(self._serve())
        finally:
            daemon.journal.off_append(self._gatherer.appended)
            self.listening.clear()
            self._renderer.shutdown(wait=False, cancel_futures=True)
            await self._desk.close()

    # -- the port

    async def _serve(self) -> None:
        runner = web.AppRunner(self._application(), handle_signals=False)
        await runner.setup()
        try:
            server = await self._bind(runner, *self._section.address)
            async with server:
                self.address = server.sockets[0].getsockname()[:2]
                self.listening.set()
                log.info("status page address=http://%s:%d", *_shown(self.address))
                await _end_old_connections(runner)
        finally:
            await runner.cleanup()

    async def _bind(self, runner: web.AppRunner, host: str, port: int) -> asyncio.Server:
        """Listen; tried again for as long as it takes."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await loop.create_server(partial(self._accept, runner), host, port)
            except OSError as error:
                level = logging.DEBUG if self._is_told else logging.ERROR
                self._is_told = True
                log.log(
                    level, "status page: cannot listen on %s:%d: %s; trying again", host, port,
                    error,
                )  # fmt: skip
            await asyncio.sleep(REBIND_S)

    def _accept(self, runner: web.AppRunner) -> asyncio.Protocol:
        """A connection; one too many is closed at once."""
        server = runner.server
        if server is None or len(server.connections) >= CONNECTIONS_MAX:
            return _Closed()
        return _Connection(server)

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._door], client_max_size=1024)
        application.on_response_prepare.append(_closed_to_everything_else)
        router = application.router
        for path, page in (
            ("/", pages.overview), ("/meters", pages.meters), ("/buses", pages.buses),
            ("/due", pages.due), ("/delivery", pages.delivery), ("/alarms", pages.alarms),
        ):  # fmt: skip
            router.add_get(path, partial(self._page, page))
        router.add_get("/meters/{meter}", self._meter)
        router.add_get("/metrics", self._metrics)
        router.add_get("/healthz", self._health)
        router.add_get("/style.css", partial(_static, "style.css", "text/css"))
        router.add_get("/icon.svg", partial(_static, "icon.svg", "image/svg+xml"))
        return application

    # -- the door

    @web.middleware
    async def _door(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Who is let in, and how many at once."""
        host = request.headers.get("Host")
        bound_to, names = self._section.address[0], self._section.hosts
        if request.method not in METHODS:
            return self._problem(request, 405, "p_method", {"Allow": ", ".join(METHODS)})
        if not host_is_ours(host, bound_to=bound_to, names=names):
            return self._problem(request, 421, "p_host")
        if self._working >= REQUESTS_MAX:
            return self._problem(request, 503, "p_busy", {"Retry-After": "2"})
        self._working += 1
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                return await handler(request)
        except TimeoutError:
            return self._problem(request, 503, "p_slow", {"Retry-After": "5"})
        except web.HTTPException as error:
            return self._problem(request, error.status, "p_not_found")
        finally:
            self._working -= 1

    def _problem(
        self, request: web.Request, status: int, word: str,
        headers: dict[str, str] | None = None, **values: object,
    ) -> web.Response:  # fmt: skip
        asked, words = self._asked(request)
        body = pages.problem(asked, words, words.say(word, **values))
        return web.Response(
            body=body, status=status, headers=headers, content_type=HTML, charset="utf-8"
        )

    def _asked(self, request: web.Request) -> tuple[pages.Asked, Words]:
        query = request.query
        chosen = next((known for known in LANGUAGES if known == query.get("lang")), None)
        language = chosen or preferred(request.headers.get("Accept-Language", ""))
        asked = pages.Asked(request.path, dict(query), language, chosen, pages.refresh_of(query))
        daemon = self._daemon
        return asked, Words(language, daemon.config.zone, daemon.clock.now_ms())

    # -- what is served

    async def _page(self, page: _Page, request: web.Request) -> web.Response:
        assert self._gatherer is not None
        facts = await self._gatherer.facts()
        asked, words = self._asked(request)
        return self._html(asked, await self._in_thread(partial(page, facts, asked, words)))

    async def _meter(self, request: web.Request) -> web.Response:
        assert self._gatherer is not None
        assert self._desk is not None
        facts = await self._gatherer.facts()
        asked, words = self._asked(request)
        name = request.match_info["meter"]
        one = next((meter for meter in facts.meters if meter.id == name), None)
        if one is None:
            return self._problem(request, 404, "p_no_meter", name=clean(name))
        zone, now_ms = self._daemon.config.zone, self._daemon.clock.now_ms()
        today = local_day(now_ms, zone)
        day = _day_of(request.query.get("day"), today)
        past, trouble = None, None
        try:
            past = await self._desk.ask(
                ("meter", name, day),
                lambda reader: meter_past(reader, name, day, zone, now_ms),
                fresh_s=METER_FRESH_S,
            )
        except JournalError as error:
            trouble = clean(str(error))
        page = partial(pages.meter, facts, asked, words, one, past, trouble, today)
        return self._html(asked, await self._in_thread(page))

    async def _metrics(self, _request: web.Request) -> web.Response:
        assert self._gatherer is not None
        facts = await self._gatherer.facts()
        body = await self._in_thread(partial(exposition, facts))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=json.dumps(self.health()).encode(), content_type="application/json"
        )

    def health(self) -> dict[str, Any]:
        """How the daemon is, from what is at hand alone (`healthz/1`)."""
        daemon = self._daemon
        tasks = list(daemon.supervisor.states.values())
        running = sum(task.running for task in tasks)
        opened = sum(bus.statistics().state is BusState.OPEN for bus in daemon.buses.values())
        connected = None if daemon.publisher is None else daemon.publisher.connected
        good = running == len(tasks) and opened == len(daemon.buses) and connected is not False
        return {
            "schema": SCHEMA_HEALTH,
            "headend": daemon.config.name,
            "version": __version__,
            "at": iso(daemon.clock.now_ms()),
            "state": "ok" if good else "degraded",
            "up_s": round(self._pulse.up_s, 3),
            "loop_lag_s": round(self._pulse.lag_s, 6),
            "tasks": {"total": len(tasks), "running": running},
            "buses": {"total": len(daemon.buses), "open": opened},
            "feed_connected": connected,
        }

    def _html(self, asked: pages.Asked, body: bytes) -> web.Response:
        response = web.Response(body=body, content_type=HTML, charset="utf-8")
        if asked.refresh_s is not None:
            # Only for who asked for it, and a link on the page ends it.
            response.headers["Refresh"] = str(asked.refresh_s)
        response.headers["Vary"] = "Accept-Language"
        return response

    async def _in_thread(self, make: Callable[[], bytes]) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._renderer, make)


def _http_log() -> logging.Logger:
    """Where aiohttp tells what goes wrong in our handlers. Bytes that are no HTTP are not worth a
    line: anybody could fill the log with them.
    """
    logger = logging.getLogger("headend.status.http")
    if not logger.filters:
        logger.addFilter(_no_bad_requests)
    return logger


def _no_access_log() -> logging.Logger:
    """A line for every request is worth nothing to anybody."""
    logger = logging.getLogger("headend.status.access")
    logger.setLevel(logging.CRITICAL)
    return logger


def _no_bad_requests(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


async def _end_old_connections(runner: web.AppRunner) -> None:
    """For ever: nobody holds a connection for longer than CONNECTION_S_MAX, idle or not."""
    loop = asyncio.get_running_loop()
    since: dict[asyncio.Protocol, float] = {}
    while True:
        await asyncio.sleep(SWEEP_S)
        server = runner.server
        now = loop.time()
        living = [] if server is None else server.connections
        since = {handler: since.get(handler, now) for handler in living}
        for handler in living:
            if now - since[handler] > CONNECTION_S_MAX:
                handler.close()


async def _closed_to_everything_else(_request: web.Request, response: web.StreamResponse) -> None:
    """What every answer carries, whoever made it."""
    response.headers.update(SECURITY_HEADERS)


class _Connection(web.RequestHandler):
    """A connection of somebody who asks."""

    def __init__(self, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEP_ALIVE_S,
            logger=_http_log(),
            access_log=_no_access_log(),
        )

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to bytes that are no HTTP, and to a fault of ours.

        The former reaches no application, so nothing else gives it what every answer carries.
        """
        response = super().handle_error(request, status, exc, message)
        response.headers.update(SECURITY_HEADERS)
        return response


class _Closed(asyncio.Protocol):
    """A connection that is not wanted."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


async def _static(name: str, kind: str, _request: web.Request) -> web.Response:
    return web.Response(body=_file(name), content_type=kind, charset="utf-8")


def _file(name: str) -> bytes:
    return files("headend.status").joinpath("static", name).read_bytes()


def _day_of(text: str | None, today: date) -> date:
    """The day of a URL; today for anything that is none, or too long ago."""
    try:
        day = date.fromisoformat(text or "")
    except ValueError:
        return today
    return day if today - timedelta(days=DAYS_BACK_MAX) <= day <= today else today


def _shown(address: tuple[str, int]) -> tuple[str, int]:
    host, port = address
    return (f"[{host}]" if ":" in host else host), port
