"""One alarm for a cause: what outages of the field side bring about."""

from dataclasses import replace

from outage_world import QUICK, World, short, street


def test_all_well_says_nothing():
    world = street(3, 4)
    assert world.run(3600) == []


def test_a_silent_meter_has_an_alarm_after_its_period_and_not_before():
    world = street()
    world.run(60)
    world.dead.add("b0m1")
    assert world.run(290) == []
    assert short(world.run(20)) == ["+meter_silent b0m1"]
    assert world.run(7200) == []
    (alarm,) = world.standing()
    assert alarm.fields["reason"] == "no_answer"
    assert alarm.fields["bus"] == "b0"


def test_a_meter_that_answers_again_is_cleared_with_what_was_repeated():
    world = street()
    world.run(60)
    world.dead.add("b0m1")
    world.run(400)
    world.dead.clear()
    assert world.run(30) == []
    (event,) = world.run(20)
    assert short([event]) == ["-meter_silent b0m1"]
    assert event.fields["count"] == 40
    assert event.fields["first_at"] < event.fields["last_at"]
    assert world.standing() == []


def test_a_refusing_meter_is_another_cause_than_a_silent_one():
    world = street()
    world.run(60)
    world.refusing.add("b0m2")
    assert short(world.run(60)) == ["+meter_refuses b0m2"]
    world.refusing.clear()
    assert short(world.run(60)) == ["-meter_refuses b0m2"]


def test_a_meter_that_fell_silent_and_then_refuses_has_one_alarm_all_the_time():
    world = street()
    world.dead.add("b0m2")
    assert short(world.run(400)) == ["+meter_silent b0m2"]
    world.dead.clear()
    world.refusing.add("b0m2")
    assert short(world.run(100)) == ["-meter_silent b0m2", "+meter_refuses b0m2"]
    assert world.names() == ["meter_refuses b0m2"]


def test_an_absent_port_is_one_alarm_and_its_meters_are_not_told():
    world = street(2, 500)
    world.run(60)
    world.gone.add("b1")
    assert short(world.run(1500)) == ["+bus_down b1"]
    (alarm,) = world.standing()
    assert alarm.fields["meters"] == 500
    assert alarm.fields["reason"] == "port"


def test_a_bus_whose_every_meter_is_silent_is_one_alarm():
    world = street(1, 1000)
    world.run(60)
    world.cut.add("b0")
    assert short(world.run(2000)) == ["+bus_down b0"]
    assert world.standing()[0].fields["reason"] == "silent"


def test_a_thousand_dead_meters_that_were_never_heard_are_one_alarm():
    world = street(1, 1000)
    world.cut.add("b0")
    assert short(world.run(2000)) == ["+bus_down b0"]


def test_a_bus_that_breaks_within_a_round_is_told_once_the_next_round_shows_it():
    """Meters read before the break speak for the bus until they are asked again."""
    world = street(1, 10)
    meters = world.buses["b0"]
    world.tick()
    world.tick(only=meters[:7])
    world.cut.add("b0")
    world.tick(only=meters[7:])
    assert world.run(120, only=meters[7:]) == []  # three of ten: not the bus
    assert short(world.run(100)) == ["+bus_down b0"]


def test_the_last_meters_of_a_round_that_die_are_not_taken_for_the_bus():
    world = street(1, 10)
    meters = world.buses["b0"]
    world.tick()
    world.dead.update(meters[8:])
    world.tick()
    # Only the dead ones are asked again until the next round.
    assert world.run(290, only=meters[8:]) == []
    assert short(world.run(60)) == ["+meter_silent b0m8", "+meter_silent b0m9"]


def test_one_meter_alone_on_its_bus_is_a_silent_meter_and_no_dead_bus():
    world = street(1, 1)
    world.run(60)
    world.cut.add("b0")
    assert short(world.run(3600)) == ["+meter_silent b0m0"]


def test_a_meter_silent_before_its_bus_is_folded_in_and_comes_back_only_if_it_answers():
    world = street(1, 5)
    world.dead.add("b0m3")
    world.run(400)
    world.gone.add("b0")
    assert short(world.run(400)) == ["+bus_down b0"]
    silent = {alarm.name: alarm for alarm in world.standing()}["meter_silent"]
    assert silent.under == "bus_down b0"
    world.gone.clear()
    assert short(world.run(1000)) == ["-bus_down b0"]
    assert world.names() == ["meter_silent b0m3"]
    assert world.standing()[0].under is None
    world.dead.clear()
    assert short(world.run(60)) == ["-meter_silent b0m3"]


def test_after_the_bus_is_back_a_meter_that_stays_silent_has_a_fresh_period():
    world = street(1, 5)
    world.run(60)
    world.cut.add("b0")
    world.run(2000)
    world.cut.clear()
    world.dead.add("b0m1")
    assert short(world.run(40)) == ["-bus_down b0"]
    assert world.run(280) == []
    assert short(world.run(40)) == ["+meter_silent b0m1"]


def test_a_flapping_port_does_not_spam_and_the_flaps_are_counted():
    world = street(1, 5)
    world.run(60)
    told = []
    for _ in range(200):
        world.gone.add("b0")
        told += world.run(70)
        world.gone.clear()
        told += world.run(20)
    assert short(told) == ["+bus_down b0"]
    (over,) = world.run(300)
    assert over.fields["flaps"] == 199


def test_a_meter_that_comes_and_goes_is_told_less_and_less_often():
    world = street(1, 5)
    world.run(60)
    told = []
    for _ in range(100):
        world.dead.add("b0m0")
        told += world.run(400)
        world.dead.clear()
        told += world.run(40)
    assert len(told) < 12, short(told)


def test_a_port_that_opens_and_breaks_at_once_is_not_back():
    world = World({"b0": ["m0", "m1"]}, replace(QUICK, settle_s=30))
    world.run(60)
    world.gone.add("b0")
    world.run(100)
    for number in range(2, 30):
        world.gone.clear()
        world.opens["b0"] = number
        assert world.tick(only=()) == []
        world.gone.add("b0")
        assert world.tick(only=()) == []
    assert world.names() == ["bus_down b0"]


def test_an_idle_bus_whose_port_is_back_is_well_though_nothing_is_due():
    world = street()
    world.run(60)
    world.gone.add("b0")
    world.run(100, only=())
    world.gone.clear()
    assert short(world.run(60, only=())) == ["-bus_down b0"]


def test_a_dead_line_is_over_only_when_somebody_answers():
    world = street()
    world.run(60)
    world.cut.add("b0")
    world.run(100)
    world.cut.clear()
    assert world.run(7200, only=()) == []
    assert short(world.run(60)) == ["-bus_down b0"]


def test_many_buses_lost_at_once_are_one_alarm():
    world = street(20, 50)
    world.run(60)
    world.gone.update(list(world.buses)[:15])
    assert short(world.run(1500)) == ["+mass_silence"]
    (alarm,) = world.standing()
    assert alarm.fields["bus_count"] == 15
    assert alarm.fields["meters"] == 750
    world.gone.clear()
    assert short(world.run(1000)) == ["-mass_silence"]


def test_a_few_buses_lost_at_once_have_their_own_alarms():
    world = street(20, 50)
    world.run(60)
    world.gone.update(["b3", "b4"])
    assert sorted(short(world.run(1500))) == ["+bus_down b3", "+bus_down b4"]


def test_buses_lost_one_after_the_other_have_no_common_cause():
    world = street(4, 10)
    world.run(60)
    told = []
    for bus in world.buses:
        world.gone.add(bus)
        told += world.run(600)
    assert short(told) == [f"+bus_down {bus}" for bus in world.buses]


def test_when_most_are_back_those_that_stay_lost_have_their_own_alarms():
    world = street(10, 10)
    world.run(60)
    world.gone.update(world.buses)
    assert short(world.run(400)) == ["+mass_silence"]
    world.gone.intersection_update({"b1", "b2"})
    assert short(world.run(400)) == ["-mass_silence", "+bus_down b1", "+bus_down b2"]


def test_devices_with_a_bus_each_that_are_lost_together_are_one_alarm():
    world = street(200, 1)
    world.run(60)
    world.cut.update(world.buses)
    assert short(world.run(4000)) == ["+mass_silence"]
    world.cut.intersection_update({"b7"})
    assert short(world.run(400)) == ["-mass_silence", "+meter_silent b7m0"]


def test_a_thousand_meters_that_die_singly_are_told_slowly_and_summed_up():
    world = street(500, 3)
    world.run(60)
    dead = [meter for bus in list(world.buses.values()) for meter in bus[:2]]
    world.dead.update(dead)
    assert len(dead) == 1000
    told = []
    minutes = []
    for _ in range(70):
        new = world.run(60)
        minutes.append(len([n for n in short(new) if n.startswith("+meter_silent")]))
        told += new
    assert max(minutes) == QUICK.per_minute
    summaries = [event for event in told if event.fields["alarm"] == "alarms_held_back"]
    assert short(summaries) == ["+alarms_held_back", "-alarms_held_back"]
    assert summaries[0].fields["meters"] == 980
    assert len(told) == 1000 + 2


def test_a_restart_neither_loses_nor_doubles_what_stands():
    world = street(3, 5)
    world.run(60)
    world.dead.add("b0m1")
    world.refusing.add("b0m2")
    world.gone.add("b1")
    world.run(500)
    before = world.names()
    assert len(before) == 3
    for _ in range(5):
        world.restart()
        assert world.run(500) == []
        assert world.names() == before
    world.dead.clear()
    world.refusing.clear()
    world.gone.clear()
    world.run(500)
    assert world.standing() == []


def test_a_restart_within_a_mass_silence_keeps_the_one_alarm():
    world = street(5, 5)
    world.run(60)
    world.gone.update(world.buses)
    world.run(200)
    world.restart()
    assert world.run(2000) == []
    assert world.names() == ["mass_silence"]
    world.gone.clear()
    assert short(world.run(200)) == ["-mass_silence"]


def test_buses_down_one_by_one_are_no_mass_after_a_restart():
    world = street(4, 10)
    world.run(60)
    for bus in world.buses:
        world.gone.add(bus)
        world.run(600)
    world.restart()
    assert world.run(2000) == []


def test_what_recovered_while_nobody_looked_is_cleared_after_the_restart():
    world = street(2, 5)
    world.dead.add("b0m1")
    world.gone.add("b1")
    world.run(500)
    world.dead.clear()
    world.gone.clear()
    world.restart()
    assert sorted(short(world.run(100))) == ["-bus_down b1", "-meter_silent b0m1"]


def test_alarms_of_what_is_no_longer_configured_are_cleared_once():
    world = street(3, 5)
    world.dead.add("b0m1")
    world.gone.add("b1")
    world.run(500)
    world.buses = {"b0": ["b0m0", "b0m2"], "b2": world.buses["b2"]}
    told = world.tick()
    assert sorted(short(told)) == ["-bus_down b1", "-meter_silent b0m1"]
    assert all(event.fields["reason"] == "no longer configured" for event in told)
    world.restart()
    assert world.run(500) == []


def test_alarms_of_what_was_removed_before_the_start_are_cleared_too():
    world = street(3, 5)
    world.dead.add("b0m1")
    world.gone.add("b1")
    world.run(500)
    world.buses = {"b2": world.buses["b2"]}
    world.restart()
    assert sorted(short(world.run(500))) == ["-bus_down b1", "-meter_silent b0m1"]


def test_a_meter_that_comes_with_a_reload_is_watched():
    world = street(1, 3)
    world.run(60)
    world.buses["b0"].append("new")
    world.dead.add("new")
    assert short(world.run(400)) == ["+meter_silent new"]


def test_a_meter_that_moves_to_another_bus_begins_anew():
    world = street(2, 3)
    world.dead.add("b0m1")
    world.run(400)
    world.buses = {"b0": ["b0m0", "b0m2"], "b1": [*world.buses["b1"], "b0m1"]}
    assert short(world.run(200)) == ["-meter_silent b0m1"]
    assert short(world.run(200)) == ["+meter_silent b0m1"]
    assert world.standing()[0].fields["bus"] == "b1"
