"""The kill loop: rounds of one kill each, with a journal set aside and one set back among them.

A round names a window, a victim and a passage. The process that reaches the window strikes the
victim there; the victim is started again; the round ends when as many readings as asked for have
been written to the journal since it began and the way to billing works again. One seed gives one
schedule.
"""

import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from tests.kill.checker import Checker, Report
from tests.kill.windows import (
    PLACES,
    SERVERS,
    SPINE_WINDOWS,
    VICTIMS,
    WATCHERS,
    Window,
)
from tests.kill.world import World, WorldError, journal_state

READS_A_ROUND = 200
STRIKE_S = 30.0  # how long a window may take to be reached
ROUND_S = 40.0  # how long the victim's return may take
DRAIN_S = 150.0  # the longest pause between two attempts at the broker, several times
PASSAGES_MAX = 5
DELAY_MS_MAX = 4  # some kills fall a moment later, while the other side works on

CYCLE = 30  # in each, the journal is copied, set back to the copy, and set aside once
COPY_AT, SET_BACK_AT, ASIDE_AT = 7, 14, 22


class KillLoopError(AssertionError):
    """What the loop promises did not hold; says where everything lies and how to repeat it."""


@dataclass(frozen=True, slots=True)
class Round:
    """One kill."""

    number: int
    window: Window
    place: str
    victim: str
    passage: int
    delay_ms: int


def windows_and_victims(*, servers: bool) -> tuple[Sequence[Window], Sequence[str]]:
    """Where is struck, and who."""
    return (tuple(Window), (*VICTIMS, *SERVERS)) if servers else (SPINE_WINDOWS, VICTIMS)


def schedule(seed: int, rounds: int, *, servers: bool = False) -> Iterator[Round]:
    """Every window with every victim, by turns in a random order."""
    windows, victims = windows_and_victims(servers=servers)
    rng = random.Random(seed)
    combinations: list[tuple[Window, str]] = []
    for number in range(1, rounds + 1):
        if not combinations:
            combinations = list(product(windows, victims))
            rng.shuffle(combinations)
        window, victim = combinations.pop()
        yield Round(
            number,
            window,
            rng.choice(PLACES.get(window, ("",))),
            victim,
            rng.randint(1, PASSAGES_MAX),
            rng.choice((0, 0, 0, rng.randint(1, DELAY_MS_MAX))),
        )


@dataclass
class Tally:
    """What the loop did."""

    seed: int
    servers: bool = False
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)  # window, victim
    rounds: int = 0
    reads: int = 0
    reads_least: int | None = None
    phases: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # seconds
    set_aside: int = 0
    set_back: int = 0
    checks: int = 0
    seconds: float = 0.0
    last: Report | None = None


class KillLoop:
    """Runs rounds in a world, and the checker from time to time."""

    def __init__(
        self, world: World, seed: int, *, say: Callable[[str], None] = lambda _text: None
    ) -> None:
        self.world = world
        self.tally = Tally(seed, servers=world.servers)
        self._say = say
        self._checker = Checker(
            world.folder,
            billing=world.open_billing,
            series=world.influxdb if world.servers else None,
        )
        self._rng = random.Random(f"specials {seed}")
        self._names = 0
        self._copy: Path | None = None
        self._receipted_at_copy: tuple[str, int] = ("", 0)

    def run(self, rounds: int, *, until: float | None = None) -> Tally:
        """All rounds (or those before the instant `until`), and the last check.

        KillLoopError with the folder, the seed and the round for everything that went wrong.
        """
        begun = time.monotonic()
        world = self.world
        doing = "the start"
        try:
            world.start_daemon()
            world.start_consumer()
            world.wait_ready("daemon")
            world.wait_ready("consumer")
            for one in schedule(self.tally.seed, rounds, servers=world.servers):
                if until is not None and time.time() >= until:
                    break
                doing = f"round {one}"
                self._round(one)
                doing = f"what follows round {one}"
                self._special((one.number - 1) % CYCLE)
                if one.number % CYCLE == 0 and one.number < rounds:
                    self._check(go_on=True)
            doing = f"the last check, after round {self.tally.rounds}"
            self._check(go_on=False)
        except (AssertionError, OSError) as error:
            raise KillLoopError(
                f"{doing}: {error}\nfolder: {world.folder}\nseed: {self.tally.seed}\n"
                + world.last_words()
            ) from error
        finally:
            self.tally.seconds = time.monotonic() - begun
        return self.tally

    # -- a round

    def _round(self, one: Round) -> None:
        world = self.world
        if time.time() > world.plan_ends_at - ROUND_S:
            self._renew_plan()
        before = world.state()
        strikes = len(world.kills())
        watcher = WATCHERS[one.window]
        order = {
            "round": one.number,
            "window": one.window,
            "place": one.place,
            "passage": one.passage,
            "delay_ms": one.delay_ms,
            "victim": one.victim,
            "victim_pid": world.pid(one.victim),
        }
        watch = time.monotonic()
        world.arm(order, watcher)
        world.wait(
            lambda: world.is_dead(one.victim),
            STRIKE_S,
            f"{one.window} was not reached {one.passage} times",
            mortal=one.victim,
        )
        self._confirm(one, strikes)
        watch = self._phase("to the strike", watch)
        at_death = world.state()
        world.restart(one.victim)
        if one.victim in world.processes:
            world.wait_ready(one.victim)
        watch = self._phase("to stand again", watch)
        self._wait_for_reads(before.readings)
        watch = self._phase("to enough readings", watch)
        self._wait_for_way(at_death.epoch, at_death.receipted)
        watch = self._phase("to a receipt", watch)
        if world.servers:
            self._wait_for_series(at_death.written)
            self._phase("to a written line", watch)
        after = world.state()
        if after.epoch != before.epoch:
            raise WorldError("a kill alone made the head-end begin a new epoch")
        reads = after.readings - before.readings
        tally = self.tally
        tally.rounds += 1
        tally.reads += reads
        tally.reads_least = min(reads, reads if tally.reads_least is None else tally.reads_least)

    def _phase(self, name: str, since: float) -> float:
        now = time.monotonic()
        self.tally.phases[name] += now - since
        return now

    def _confirm(self, one: Round, strikes: int) -> None:
        """The victim died of the strike, and the strike fell in the window."""
        if not self.world.ended_by_kill(one.victim):
            raise WorldError(f"the {one.victim} ended, but not of SIGKILL")
        new = self.world.kills()[strikes:]
        if [(k["round"], k["window"], k["victim"]) for k in new] != [
            (one.number, one.window, one.victim)
        ]:
            raise WorldError(f"not the strike that was ordered: {new}")
        self.tally.kills[one.window, one.victim] += 1

    def _wait_for_reads(self, before: int) -> None:
        def enough() -> bool:
            state = journal_state(self.world.journal)
            return state is not None and state.readings - before >= READS_A_ROUND

        self.world.wait(enough, ROUND_S, "readings do not come in again")

    def _wait_for_way(self, epoch: str, receipted: int) -> None:
        """Until billing has receipted something since, and the cursor says so."""

        def moved() -> bool:
            state = journal_state(self.world.journal)
            return state is not None and (state.epoch != epoch or state.receipted > receipted)

        self.world.wait(moved, ROUND_S, "no receipt moves the cursor any more")

    def _wait_for_series(self, written: int) -> None:
        """Until the time-series writer, where there is one, has written something since."""
        if not self.world.servers:
            return

        def moved() -> bool:
            state = journal_state(self.world.journal)
            return state is not None and state.written > written

        self.world.wait(moved, ROUND_S, "the time-series writer does not come on any more")

    def _renew_plan(self) -> None:
        """The plan is nearly over: a new one, as a person would put it in force."""
        world = self.world
        world.resting.add("daemon")
        world.stop("daemon")
        world.start_daemon()
        world.resting.discard("daemon")
        world.wait_ready("daemon")

    # -- journals that are set back and set aside

    def _special(self, at: int) -> None:
        if at == COPY_AT:
            self._copy = self.world.copy_journal(self._name("yesterday"))
            state = self.world.state()
            self._receipted_at_copy = (state.epoch, state.last_seq)
        elif at == SET_BACK_AT and self._copy is not None:
            self._set_back(self._copy)
            self._copy = None
        elif at == ASIDE_AT:
            self._set_aside()

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{self._names:03d}-{kind}"

    def _end_daemon(self) -> None:
        world = self.world
        world.resting.add("daemon")
        if self._rng.random() < 0.5:
            world.stop("daemon")
        else:
            world.kill("daemon")

    def _daemon_again(self) -> None:
        world = self.world
        world.start_daemon()
        world.resting.discard("daemon")
        world.wait_ready("daemon")

    def _set_back(self, copy: Path) -> None:
        """Yesterday's journal is put back behind the daemon's back. It must be noticed."""
        world = self.world
        epoch, last_seq = self._receipted_at_copy
        state = world.state()
        if state.epoch != epoch or state.receipted <= last_seq:
            raise WorldError("billing has receipted nothing since the copy: nothing is set back")
        self._end_daemon()
        if self._rng.random() < 0.5:
            # Without what it retained, billing alone knows better.
            world.broker.kill()
            world.broker.start()
        world.set_journal_aside(self._name("replaced"))
        copy.replace(world.journal)
        before = world.state()
        self._daemon_again()
        self._wait_for_reads(before.readings)

        def noticed() -> bool:
            now = journal_state(world.journal)
            return now is not None and now.epochs == before.epochs + 1

        world.wait(noticed, ROUND_S, "nobody noticed that the journal was set back")
        now = world.state()
        self._wait_for_way(now.epoch, 0)
        self._wait_for_series(now.written)
        self.tally.set_back += 1

    def _set_aside(self) -> None:
        """The journal is moved away, with whatever is not receipted; a new one begins."""
        world = self.world
        epoch = world.state().epoch
        self._end_daemon()
        world.set_journal_aside(self._name("aside"))
        self._daemon_again()
        self._wait_for_reads(0)
        now = world.state()
        if now.epoch == epoch:
            raise WorldError("a journal begun anew has the old epoch")
        self._wait_for_way(now.epoch, 0)
        self._wait_for_series(0)
        self.tally.set_aside += 1

    # -- the check

    def _check(self, *, go_on: bool) -> None:
        """Stop polling, let everything drain, compare. Billing's process is stopped at the end."""
        world = self.world
        world.resting.add("daemon")
        world.stop("daemon")
        world.start_daemon(polling=False)
        world.resting.discard("daemon")

        def drained() -> bool:
            state = journal_state(world.journal)
            return state is not None and state.last_seq == state.receipted and state.to_write == 0

        world.wait_ready("daemon")
        world.wait(drained, DRAIN_S, "the backlog does not drain")
        world.resting.add("daemon")
        world.stop("daemon")
        if not go_on:
            world.resting.add("consumer")
            world.stop("consumer")
        report = self._checker.check()
        if not go_on:
            report.take(self._checker.check_spans(world.billing_spans()))
        self.tally.checks += 1
        self.tally.last = report
        self._say(f"round {self.tally.rounds}: {report.line()}")
        if report.findings:
            raise WorldError("the checker found:\n" + "\n".join(map(str, report.findings)))
        died = world.deaths_inside()
        if died:
            raise WorldError("tasks died inside a process:\n" + "\n".join(died))
        if go_on:
            self._daemon_again()


def describe(tally: Tally) -> str:
    """The table for people: kills by window and victim, and what went through."""
    windows, victims = windows_and_victims(servers=tally.servers)
    width = max(len(window) for window in windows)
    lines = [f"{'window':{width}}  " + "".join(f"{v:>12}" for v in (*victims, "together"))]
    for window in windows:
        counts = [tally.kills[window, victim] for victim in victims]
        lines.append(f"{window:{width}}  " + "".join(f"{n:>12}" for n in (*counts, sum(counts))))
    totals = [sum(tally.kills[w, v] for w in windows) for v in victims]
    lines.append(f"{'together':{width}}  " + "".join(f"{n:>12}" for n in (*totals, sum(totals))))
    least = "-" if tally.reads_least is None else tally.reads_least
    lines += [
        "",
        f"rounds               {tally.rounds}",
        f"readings written     {tally.reads} in rounds (at least {least} in each)",
        f"journals set aside   {tally.set_aside}",
        f"journals set back    {tally.set_back}",
        f"checks               {tally.checks}",
    ]
    if tally.last is not None:
        lines += tally.last.lines()
    lines += [
        (
            f"duration             {tally.seconds:.0f} s"
            f" ({tally.seconds / max(1, tally.rounds):.2f} s a round)"
        ),
        *(f"  {name:19}{s / max(1, tally.rounds):.2f} s" for name, s in tally.phases.items()),
        f"seed                 {tally.seed}",
        f"machine              {_machine()}",
        f"date                 {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}",
    ]
    return "\n".join(lines)


def _machine() -> str:
    model = "unknown processor"
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [s for s in info.read_text().splitlines() if s.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    system: Any = os.uname()
    return f"{os.cpu_count()} x {model}, {system.sysname} {system.release}"
