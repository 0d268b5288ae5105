"""What is told to the service manager, and when the watchdog is no longer fed."""

import logging
import os
import socket

import pytest

from headend.notify import Notifier, Steps, StepWatch, Stuck, Watchdog


class HandClock:
    """A clock that is set by hand."""

    def __init__(self):
        self.at_s = 1000.0

    def now_ms(self):
        return int(self.at_s * 1000)

    def monotonic(self):
        return self.at_s


class Ear:
    """A service manager's socket."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)

    def heard(self):
        """The datagrams since the last call, each as its lines."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096, socket.MSG_DONTWAIT).decode().split("\n"))
            except BlockingIOError:
                return found

    def close(self):
        self.socket.close()


@pytest.fixture(params=["path", "abstract"])
def ear(request, tmp_path):
    name = f"headend-test-{os.getpid()}-{tmp_path.name}"
    path = str(tmp_path / "notify")
    ear = Ear(path if request.param == "path" else f"\0{name}")
    ear.name = path if request.param == "path" else f"@{name}"
    yield ear
    ear.close()


def test_every_word_reaches_a_path_and_an_abstract_name(ear):
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": ear.name, "WATCHDOG_USEC": "3000000"})
    notifier.ready("3 meters")
    notifier.status("two\nlines")
    notifier.feed()
    notifier.reloading(HandClock())
    notifier.stopping()
    assert ear.heard() == [
        ["READY=1", "STATUS=3 meters"],
        ["STATUS=two lines"],
        ["WATCHDOG=1"],
        ["RELOADING=1", "MONOTONIC_USEC=1000000000"],
        ["STOPPING=1", "STATUS=going down"],
    ]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "3000000"},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "relative", "WATCHDOG_USEC": "3000000"},
    ],
)
def test_without_a_manager_nothing_is_said_and_nothing_fed(environ):
    notifier = Notifier.from_environment(environ)
    assert notifier.watchdog_s is None
    notifier.ready("")
    notifier.feed()


@pytest.mark.parametrize(
    ("more", "limit_s"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_only_where_it_waits_for_this_process(ear, more, limit_s):
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": ear.name, **more})
    assert notifier.watchdog_s == limit_s
    notifier.feed()
    assert ear.heard() == ([["WATCHDOG=1"]] if limit_s else [])


def test_a_manager_that_is_gone_is_logged_once_and_harms_nothing(tmp_path, caplog):
    notifier = Notifier(str(tmp_path / "nobody"), watchdog_s=1.0)
    with caplog.at_level(logging.WARNING):
        notifier.feed()
        notifier.feed()
    assert len(caplog.records) == 1
    assert "nobody" in caplog.text


def test_a_manager_that_does_not_read_never_holds_the_loop_up(ear):
    notifier = Notifier(ear.name, watchdog_s=1.0)
    for _ in range(5000):
        notifier.feed()  # far more than a socket's queue holds
    assert ear.heard()
    notifier.status("heard again")
    assert ear.heard() == [["STATUS=heard again"]]


# -- the decision


def look_every(watch, seconds, tasks, *, step_s=10.0, start=0.0):
    """Look again and again; the first moment something hangs, or None."""
    at = start
    while at <= start + seconds:
        if watch.look(at, tasks(at)):
            return at
        at += step_s
    return None


def test_a_task_that_steps_is_never_stuck():
    watch = StepWatch(10)
    assert look_every(watch, 3600, lambda at: {"bus:a": Steps(at // 100, 180)}) is None


def test_a_task_without_a_step_hangs_after_its_bound_and_not_before():
    watch = StepWatch(10)
    assert look_every(watch, 3600, lambda _: {"bus:a": Steps(7, 180)}) == 190
    assert watch.look(200, {"bus:a": Steps(7, 180)}) == [Stuck("bus:a", 200, 180)]


def test_each_task_has_its_own_bound_and_only_those_that_hang_are_named():
    watch = StepWatch(10)
    for at in range(0, 250, 10):
        stuck = watch.look(
            at, {"bus:a": Steps(at, 180), "bus:b": Steps(1, 180), "poll:b": Steps(1, 300)}
        )
    assert [one.name for one in stuck] == ["bus:b"]


def test_one_step_ends_the_hanging():
    watch = StepWatch(10)
    assert look_every(watch, 300, lambda _: {"a": Steps(1, 100)}) is not None
    assert watch.look(310, {"a": Steps(2, 100)}) == []
    assert look_every(watch, 80, lambda _: {"a": Steps(2, 100)}, start=320) is None


def test_nothing_to_do_is_not_hanging_however_long():
    watch = StepWatch(10)
    assert look_every(watch, 86_400, lambda _: {"billing": Steps(None, 300)}) is None
    # What begins then has its whole bound before it.
    assert look_every(watch, 290, lambda _: {"billing": Steps(5, 300)}, start=90_000) is None


def test_a_machine_that_slept_is_not_a_task_that_hangs():
    watch = StepWatch(10)
    watch.look(0, {"a": Steps(1, 180)})
    assert watch.look(100_000, {"a": Steps(1, 180)}) == []
    assert watch.look(100_010, {"a": Steps(1, 180)}) == []


def test_a_task_that_went_and_came_back_begins_anew():
    watch = StepWatch(10)
    look_every(watch, 170, lambda _: {"a": Steps(1, 180)})
    watch.look(180, {})
    assert look_every(watch, 170, lambda _: {"a": Steps(1, 180)}, start=190) is None


# -- feeding


def fed(ear):
    return sum(lines == ["WATCHDOG=1"] for lines in ear.heard())


@pytest.fixture
def one_ear(tmp_path):
    ear = Ear(str(tmp_path / "one"))
    ear.name = str(tmp_path / "one")
    yield ear
    ear.close()


def test_a_stuck_task_ends_the_feeding_with_a_line_that_names_it(one_ear, caplog):
    clock, mark = HandClock(), [0]
    dog = Watchdog(
        Notifier(one_ear.name, watchdog_s=60),
        tasks=lambda: {"bus:street-a": Steps(mark[0], 180), "bus:b": Steps(clock.at_s, 180)},
        status=lambda: "well",
        clock=clock,
    )
    assert dog.look_s <= 20

    def pass_time(seconds):
        end, feeds = clock.at_s + seconds, 0
        while clock.at_s < end:
            clock.at_s += dog.look_s
            dog.look()
            feeds += fed(one_ear)
        return feeds

    with caplog.at_level(logging.WARNING):
        dog.look()
        assert pass_time(170) >= 17
        assert not caplog.records
        pass_time(60)
        assert pass_time(600) == 0
    (line,) = caplog.records
    assert "task=bus:street-a" in line.getMessage()
    assert "180 s" in line.getMessage()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        mark[0] += 1
        dog.look()
    assert fed(one_ear) == 1
    assert "task=bus:street-a takes steps again" in caplog.text


def test_the_status_is_told_when_it_changes_and_names_what_hangs(one_ear):
    clock, status = HandClock(), ["2 buses"]
    dog = Watchdog(
        Notifier(one_ear.name),
        tasks=lambda: {"bus:a": Steps(1, 15)},
        status=lambda: status[0],
        clock=clock,
    )
    dog.look()
    dog.look()
    status[0] = "2 buses, no port: a"
    dog.look()
    clock.at_s += 10
    dog.look()
    clock.at_s += 10
    dog.look()
    assert [lines[0] for lines in one_ear.heard()] == [
        "STATUS=2 buses",
        "STATUS=2 buses, no port: a",
        "STATUS=hangs: bus:a",
    ]
