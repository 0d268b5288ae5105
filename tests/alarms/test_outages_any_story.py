"""Whatever happens to buses and meters: every silent meter is explained by exactly one cause.

A story is any sequence of ports pulled and plugged, lines cut, meters that die, refuse and live
again, restarts of the head-end, and time going by in which all meters or only some are read.
"""

from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outage_world import QUICK, World

# A machine that is busy with other things is no fault of a story.
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]

# A meter that is not well is without a cause no longer than its own period, and at its end its bus
# may just look lost, which is decided within a minute; a port that flaps may do so once more.
EXPLAINED_WITHIN_S = 300 + 60 + 60 + 20
# What is well is no longer told after the longest clearing, and a mass after its buses'.
OVER_WITHIN_S = 240 + 60


class Judge:
    """Holds what stands against the truth, at every tick."""

    def __init__(self, world):
        self.world = world
        self.unwell_since = {}
        self.explained_at = {}
        self.well_since = {}
        self.bus_well_since = {}

    def _note(self):
        world = self.world
        for bus, meters in world.buses.items():
            bus_is_well = bus not in world.gone | world.cut and any(
                world.seen(bus, meter) == "good" for meter in meters
            )
            if bus_is_well:
                self.bus_well_since.setdefault(bus, world.now_s)
            else:
                self.bus_well_since.pop(bus, None)
            for meter in meters:
                keep, drop = self.well_since, self.unwell_since
                if world.seen(bus, meter) != "good":
                    keep, drop = drop, keep
                keep.setdefault(meter, world.now_s)
                drop.pop(meter, None)

    def look(self):
        self._note()
        world, now = self.world, self.world.now_s
        alarms = world.standing()
        explains = defaultdict(list)
        for alarm in alarms:
            for meter in self._of(alarm):
                if alarm.under is None:
                    explains[meter].append(f"{alarm.name} {alarm.subject}")
        for meter, since in self.unwell_since.items():
            # A mass may be told of a bus that joined it: what the machine says is the cause.
            causes = set(explains[meter])
            cause = world.outages.cause_of(meter)
            if cause is not None:
                assert cause.startswith("mass_silence") or {cause} >= {
                    one.strip() for one in causes if not one.startswith("mass_silence")
                }, (meter, cause, causes)
            if cause is not None:
                self.explained_at[meter] = now
            unexplained_s = now - max(since, self.explained_at.get(meter, since))
            assert unexplained_s <= EXPLAINED_WITHIN_S, f"{meter} is silent and nothing says why"
        for alarm in alarms:
            self._is_not_well(alarm, now)

    def _of(self, alarm):
        world = self.world
        if alarm.name == "mass_silence":
            return [m for bus in alarm.fields["buses"] for m in world.buses.get(bus, ())]
        if alarm.name == "bus_down":
            return world.buses[alarm.subject]
        return [alarm.subject] if "meter" in alarm.fields else []

    def _is_not_well(self, alarm, now):
        if alarm.name == "bus_down":
            since = self.bus_well_since.get(alarm.subject, now)
        elif alarm.name == "mass_silence":
            since = max(self.bus_well_since.get(bus, now) for bus in alarm.fields["buses"])
        elif "meter" in alarm.fields:
            since = self.well_since.get(alarm.subject, now)
            bus = alarm.fields["bus"]
            since = max(since, self.bus_well_since.get(bus, now))
        else:
            return
        assert now - since <= OVER_WITHIN_S, f"{alarm} stands for what is well since {since}"


SHAPE = {"a": ["a0", "a1", "a2", "a3"], "b": ["b0", "b1"], "c": ["c0"], "d": ["d0", "d1", "d2"]}
METERS = [meter for meters in SHAPE.values() for meter in meters]
STEPS = st.one_of(
    st.tuples(st.just("gone"), st.sampled_from(sorted(SHAPE))),
    st.tuples(st.just("cut"), st.sampled_from(sorted(SHAPE))),
    st.tuples(st.just("dead"), st.sampled_from(METERS)),
    st.tuples(st.just("refusing"), st.sampled_from(METERS)),
    st.tuples(st.just("all_gone"), st.just("")),
    st.tuples(st.just("all_well"), st.just("")),
    st.tuples(st.just("restart"), st.just("")),
)
STORY = st.lists(st.tuples(STEPS, st.integers(1, 60)), max_size=14)


def act(world, what, which):
    """One thing happens, or is undone."""
    if what == "restart":
        world.restart()
    elif what == "all_gone":
        world.gone.update(world.buses)
    elif what == "all_well":
        for one in (world.gone, world.cut, world.dead, world.refusing):
            one.clear()
    else:
        getattr(world, what).symmetric_difference_update({which})


@given(STORY)
@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
def test_every_silent_meter_has_one_cause_and_nothing_stands_for_what_is_well(story):
    world = World({bus: list(meters) for bus, meters in SHAPE.items()})
    judge = Judge(world)
    for (what, which), ticks in [*story, (("all_well", ""), 60)]:
        act(world, what, which)
        if what == "restart":
            judge.unwell_since.clear()  # the periods begin anew
            judge.explained_at.clear()
        for _ in range(ticks):
            world.tick()
            judge.look()
    assert world.standing() == []


@given(STORY, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
def test_the_same_when_only_some_meters_are_read_at_a_time(story, random):
    """Plans differ: not every meter is read all the time. What is told is still told once."""
    world = World({bus: list(meters) for bus, meters in SHAPE.items()})
    for (what, which), ticks in story:
        act(world, what, which)
        for _ in range(ticks):
            world.tick(only={meter for meter in METERS if random.random() < 0.4})
    act(world, "all_well", "")
    world.run(2000)
    assert world.standing() == []


@pytest.mark.parametrize("per_minute", [1, 3])
@given(dead=st.sets(st.sampled_from([f"m{n}" for n in range(40)]), min_size=1))
@settings(max_examples=8, deadline=None, suppress_health_check=SLOW)
def test_never_more_alarms_of_meters_in_a_minute_than_are_said(per_minute, dead):
    from dataclasses import replace

    buses = {"x": [f"m{n}" for n in range(40)] + [f"live{n}" for n in range(41)]}
    world = World(buses, replace(QUICK, per_minute=per_minute))
    world.run(60)
    world.dead.update(dead)
    world.run(400 + 60 * (len(dead) // per_minute + 4))
    raised = [e.at_ms for e in world.events if e.kind == "alarm" and "meter" in e.fields]
    assert len(raised) == len(dead)
    for first in raised:
        assert sum(first <= at < first + 60_000 for at in raised) <= per_minute
    held_back = [e for e in world.events if e.fields["alarm"] == "alarms_held_back"]
    assert [e.kind for e in held_back] == (
        ["alarm", "alarm_cleared"] if len(dead) > per_minute else []
    )
