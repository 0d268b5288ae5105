"""A storm of one thing costs a line a minute; everything else is said as always."""

import io
import json
import logging
import threading

from test_log_lines import Clock

from headend.logs import KEYS_MAX, logging_to

log = logging.getLogger("headend.storms")


class Storm:
    """A log with a clock that is moved by hand."""

    def __init__(self, style="text", level="info"):
        self.clock = Clock()
        self.stream = io.StringIO()
        self.context = logging_to(
            self.stream, clock=self.clock, environment={}, style=style, level=level
        )

    def __enter__(self):
        self.limit = self.context.__enter__()
        return self

    def __exit__(self, *what):
        return self.context.__exit__(*what)

    @property
    def lines(self):
        """The messages so far."""
        return [line.split(" ", 3)[3] for line in self.stream.getvalue().splitlines()]


def test_the_first_is_said_at_once_and_the_rest_is_one_line_a_minute():
    with Storm() as storm:
        for second in range(600):
            storm.clock.at_s = second
            for _ in range(10):
                log.error("bus=%s failed: %s", "a", f"at {second}")
            if second == 0:
                assert storm.lines == ["bus=a failed: at 0"]
    assert len(storm.lines) == 1 + 10
    assert storm.lines[1] == "bus=a failed: at 59 … (repeated 599 times in 60 s)"
    repeated = sum(int(line.split("repeated ")[1].split()[0]) for line in storm.lines[1:])
    assert 1 + repeated == 6000


def test_another_template_level_logger_or_subject_is_another_thing():
    with Storm() as storm:
        for _ in range(5):
            log.warning("one %d", 1)
            log.error("one %d", 1)
            log.warning("two %d", 1)
            logging.getLogger("headend.other").warning("one %d", 1)
            log.warning("one %d", 1, extra={"about": "bus-a"})
            log.warning("one %d", 1, extra={"about": "bus-b"})
        assert len(storm.lines) == 6
    assert len(storm.lines) == 12


def test_what_is_said_once_a_minute_or_less_is_never_touched():
    with Storm() as storm:
        for minute in range(10):
            storm.clock.at_s = minute * 60
            log.warning("minute %d", minute)
    assert storm.lines == [f"minute {minute}" for minute in range(10)]


def test_a_storm_that_is_over_is_told_by_the_tick_though_nobody_speaks():
    with Storm() as storm:
        for _ in range(100):
            log.warning("x")
        storm.clock.at_s = 59
        storm.limit.tick()
        assert storm.lines == ["x"]
        storm.clock.at_s = 61
        storm.limit.tick()
        assert storm.lines == ["x", "x … (repeated 99 times in 61 s)"]
        storm.clock.at_s = 200
        storm.limit.tick()
        log.warning("x")
        assert storm.lines[2:] == ["x"]


def test_what_was_counted_is_told_at_the_end():
    with Storm() as storm:
        for _ in range(8):
            log.warning("x")
        storm.clock.at_s = 12
    assert storm.lines == ["x", "x … (repeated 7 times in 12 s)"]


def test_routine_below_warning_is_not_limited():
    with Storm() as storm:
        for number in range(5):
            log.info("bus=%d open", number)
    assert len(storm.lines) == 5


def test_memory_is_bounded_and_nothing_counted_is_lost():
    with Storm() as storm:
        for number in range(KEYS_MAX * 3):
            log.warning("again", extra={"about": number})
            log.warning("again", extra={"about": number})
        assert len(storm.limit._windows) == KEYS_MAX
    told = storm.lines
    assert len(told) == KEYS_MAX * 3 * 2
    assert sum("repeated once" in line for line in told) == KEYS_MAX * 3


def test_the_summary_is_json_with_the_count_apart():
    with Storm("json") as storm:
        for number in range(4):
            log.warning("bus=%s took_ms=%d", "a", number)
    first, last = [json.loads(line) for line in storm.stream.getvalue().splitlines()]
    assert "repeated" not in first
    assert last["repeated"] == {"count": 3, "seconds": 1}
    assert last["fields"] == {"bus": "a", "took_ms": 3}
    assert last["message"] == "bus=a took_ms=3 … (repeated 3 times in 1 s)"


def test_a_storm_of_tracebacks_shows_one():
    with Storm() as storm:
        for _ in range(50):
            try:
                raise ValueError("again")
            except ValueError:
                log.exception("failed")
    assert storm.stream.getvalue().count("Traceback") == 1


def test_many_threads_lose_and_double_nothing():
    with Storm() as storm:
        threads = [
            threading.Thread(target=lambda: [log.warning("x %d", n) for n in range(500)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(storm.lines) == 2
    assert storm.lines[1].endswith("(repeated 3999 times in 1 s)")
