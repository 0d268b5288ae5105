"""What one record looks like, as text and as JSON, and what never stands in it."""

import asyncio
import io
import json
import logging
import os
import threading
from pathlib import Path

import jsonschema
import pytest

from headend.logs import JsonLines, TextLines, cleaned, logging_to, under_journald

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "schemas" / "log.schema.json").read_text(encoding="utf-8")
)
log = logging.getLogger("headend.bus.bus")


class Clock:
    """Stands still unless it is moved."""

    def __init__(self):
        self.at_s = 0.0

    def now_ms(self):
        return int(self.at_s * 1000)

    def monotonic(self):
        return self.at_s


def said(say, *, style="text", level="info", environment=None):
    """What is written while `say` runs."""
    stream = io.StringIO()
    with logging_to(stream, level=level, style=style, clock=Clock(), environment=environment or {}):
        say()
    return stream.getvalue()


def objects(say, **options):
    """The same as JSON, each line held against the schema."""
    lines = [json.loads(line) for line in said(say, style="json", **options).splitlines()]
    for line in lines:
        jsonschema.validate(line, SCHEMA)
    return lines


def test_a_text_line_has_time_level_logger_and_message():
    text = said(lambda: log.warning("bus=%s state=%s", "street-a", "open"))
    stamp, rest = text.split(" ", 1)
    assert stamp.endswith("Z")
    assert len(stamp) == len("2026-01-01T00:00:00.000Z")
    assert rest == "WARNING headend.bus.bus bus=street-a state=open\n"


def test_json_has_the_pairs_apart_with_whole_values_and_numbers_as_numbers():
    (line,) = objects(
        lambda: log.warning(
            "bus=%s point=%s try=%d took_ms=%.1f state=%s: %s",
            "street a",
            "active_import_total",
            2,
            212.5,
            "gone",
            "no such device at=12:30",
        )
    )
    assert line["level"] == "warning"
    assert line["logger"] == "headend.bus.bus"
    assert line["task"] is None
    assert line["fields"] == {
        "bus": "street a", "point": "active_import_total", "try": 2, "took_ms": 212.5,
        "state": "gone", "at": "12:30",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("template", "args", "fields"),
    [
        ("nothing here", (), {}),
        ("100 %% of bus=%s", ("a",), {"bus": "a"}),
        ("bus=%s: broken", ("a b",), {"bus": "a b"}),
        ("alarm=%s %s", ("bus_down", "bus=a reason=port"), {
            "alarm": "bus_down", "bus": "a", "reason": "port"}),
        ("url=%s", ("tcp://h:1",), {"url": "tcp://h:1"}),
        ("flag=%s", (True,), {"flag": "True"}),
        ("nan=%s", (float("inf"),), {"nan": "inf"}),
        ("e.g.=1 a.b=2 =3 x==4", (), {"x": "=4"}),
    ],
)  # fmt: skip
def test_pairs_of_any_message(template, args, fields):
    (line,) = objects(lambda: log.warning(template, *args))
    assert line["fields"] == fields


async def test_json_names_the_task_that_spoke():
    async def speak():
        log.warning("x=%d", 1)

    stream = io.StringIO()
    with logging_to(stream, style="json", clock=Clock(), environment={}):
        await asyncio.create_task(speak(), name="bus:street-a")
        thread = threading.Thread(target=log.warning, args=("y=%d", 2), name="journal")
        thread.start()
        thread.join()
    tasks = [json.loads(line)["task"] for line in stream.getvalue().splitlines()]
    assert tasks == ["bus:street-a", "journal"]


def test_a_traceback_is_part_of_one_json_line_and_follows_a_text_line():
    def say():
        try:
            raise ValueError("password=geheim in a cause")
        except ValueError as error:
            log.error("task=%s died", "x", exc_info=error)

    (line,) = objects(say)
    assert "ValueError" in line["trace"]
    text = said(say)
    assert text.splitlines()[1] == "Traceback (most recent call last):"
    for shown in (line["trace"], text):
        assert "geheim" not in shown


def test_text_from_outside_cannot_forge_a_line():
    text = said(lambda: log.warning("device says %s", "a\n2026 ERROR forged\x1b[31m\u202e"))
    assert text.count("\n") == 1
    assert "\\n2026 ERROR forged\\x1b[31m\\u202e" in text


def test_an_endless_message_is_cut():
    assert len(said(lambda: log.warning("%s", "x" * 100_000))) < 5000


@pytest.mark.parametrize(
    "text",
    [
        "connecting to mqtt://billing:geheim@broker:1883",
        "postgresql://role:geheim@db/headend is away",
        "password=geheim",
        "Password: geheim",
        "mqtt_password='geheim'",
        'token="geheim"',
        "Authorization: Bearer geheim",
        "Authorization: Token geheim",
        "{'password': 'geheim', 'user': 'x'}",
        "operator_code=geheim meter=1",
        "secret=geheim",
    ],
)
def test_what_is_named_like_a_secret_is_not_shown(text):
    assert "geheim" not in cleaned(text)
    assert "geheim" not in said(lambda: log.warning("%s", text))
    assert "geheim" not in json.dumps(objects(lambda: log.warning("%s", text)))


@pytest.mark.parametrize(
    "text",
    [
        "password_file=/etc/headend/broker.password",
        "refused: password",
        "url=tcp://10.0.0.1:4001",
        "meter=000000000001 point=active_import_total",
    ],
)
def test_what_only_names_a_secret_is_shown(text):
    assert cleaned(text) == text


def test_under_the_service_managers_journal_lines_have_a_priority_and_no_time(tmp_path):
    with (tmp_path / "journal").open("w+") as stream:
        found = os.fstat(stream.fileno())
        environment = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert under_journald(stream, environment)
        assert not under_journald(stream, {})
        assert not under_journald(stream, {"JOURNAL_STREAM": "1:2"})
        with logging_to(stream, clock=Clock(), environment=environment):
            log.info("a")
            log.warning("b")
            try:
                raise ValueError("c")
            except ValueError:
                log.exception("d")
        stream.seek(0)
        lines = stream.read().splitlines()
    assert lines[0] == "<6>INFO headend.bus.bus a"
    assert lines[1] == "<4>WARNING headend.bus.bus b"
    assert len(lines) > 4
    assert all(line.startswith("<3>") for line in lines[2:])


def test_a_stream_without_a_file_is_not_the_journal():
    assert not under_journald(io.StringIO(), {"JOURNAL_STREAM": "1:2"})


def test_levels_are_our_own_and_other_libraries_only_warn():
    def say():
        log.debug("ours debug")
        log.info("ours info")
        logging.getLogger("aiohttp").info("theirs info")
        logging.getLogger("aiohttp").warning("theirs warning")

    assert [line["message"] for line in objects(say)] == ["ours info", "theirs warning"]
    assert [line["message"] for line in objects(say, level="warning")] == ["theirs warning"]
    assert next(line["message"] for line in objects(say, level="debug")) == "ours debug"


def test_afterwards_logging_is_as_it_was():
    root, ours = logging.getLogger(), logging.getLogger("headend")
    before = (list(root.handlers), root.level, ours.level)
    said(lambda: None)
    assert (list(root.handlers), root.level, ours.level) == before


def test_formatters_stand_alone():
    record = logging.makeLogRecord({"msg": "a=%d", "args": (1,), "levelname": "INFO", "name": "n"})
    assert TextLines().format(record).endswith("INFO n a=1")
    assert json.loads(JsonLines().format(record))["fields"] == {"a": 1}
