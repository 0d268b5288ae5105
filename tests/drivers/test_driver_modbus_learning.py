"""What a Modbus session learns of its device, keeps, and has doubts about."""

from decimal import Decimal

import pytest

from headend.bus import Priority
from headend.config.profiles import PACKAGED, load_profile
from headend.domain.errors import BadReply, NoAnswer
from headend.drivers import ModbusSession, error_code
from headend.drivers.modbus_blocks import ABSENT_AFTER_S, ASK_AGAIN_S
from headend.drivers.modbus_check import CHECK_EVERY_S
from headend.drivers.modbus_memory import DeviceMemory
from protocols.errors import LocalProtocolError
from protocols.modbus.decode import encode
from protocols.modbus.device import parse_request
from protocols.modbus.line_cost import Line
from protocols.modbus.sunspec import END_ID, MARKER, any_sunspec, chain_of, sunspec_profile
from tests.support.modbus_device import ACREL, Device, HandClock

CHINT = load_profile("chint_dtsu666", PACKAGED.parent)
ABB = load_profile("abb_b23_b24", PACKAGED.parent)
IMPORT = "active_import_total"
ONE = Decimal(1)
THREE = ["voltage_a", "voltage_b", "voltage_c"]


def made(device, clock=None, **more):
    more = {"tcp": device.tcp, "clock": clock or HandClock(), **more}
    return ModbusSession(device, 1, more.pop("profile", device.profile), **more)


def errors(results):
    return [None if r.error is None else error_code(r.error) for r in results]


def silent():
    return NoAnswer("silent", bus="b", waited_ms=1.0, attempts=3, diagnosis="silence")


# -- refusals


@pytest.fixture
def two_phases():
    device = Device(**dict.fromkeys(THREE, ONE))
    for at in (4, 5):
        del device.words[at]
    return device


async def learn_absent(device, clock):
    session = made(device, clock)
    await session.read(THREE)
    clock.now_s += ABSENT_AFTER_S
    await session.read(THREE)
    return session


async def test_a_register_refused_twice_with_time_between_is_asked_no_more(two_phases):
    clock = HandClock()
    session = await learn_absent(two_phases, clock)
    asked = len(two_phases.asked)
    results = await session.read(THREE)
    assert errors(results) == [None, None, "refused"]
    assert "asked again later" in str(results[2].error)
    assert two_phases.asked[asked:] == [(4, 0, 4)]  # one request again, around the hole


async def test_two_refusals_in_one_breath_do_not_make_a_register_absent(two_phases):
    clock = HandClock()
    session = made(two_phases, clock)
    for _ in range(3):
        await session.read(THREE)
    assert session.learned.learned.absent == ()


async def test_silence_teaches_nothing():
    device = Device(**dict.fromkeys(THREE, ONE))
    clock = HandClock()
    session = made(device, clock)
    for _ in range(3):
        device.script = [silent()]
        await session.read(THREE)
        clock.now_s += ABSENT_AFTER_S
    assert session.learned == DeviceMemory()


async def test_an_absent_register_is_asked_again_after_an_hour_and_found(two_phases):
    clock = HandClock()
    session = await learn_absent(two_phases, clock)
    two_phases.set("voltage_c", Decimal(231))
    assert errors(await session.read(THREE)) == [None, None, "refused"]
    clock.now_s += ASK_AGAIN_S
    results = await session.read(THREE)
    assert results[2].value == 231
    assert session.learned.learned.absent == ()


async def test_a_person_is_answered_although_the_register_was_absent(two_phases):
    session = await learn_absent(two_phases, HandClock())
    two_phases.set("voltage_c", Decimal(231))
    (result,) = await session.read(["voltage_c"], priority=Priority.ON_DEMAND)
    assert result.value == 231


async def test_an_absent_register_still_refused_waits_another_hour(two_phases):
    clock = HandClock()
    session = await learn_absent(two_phases, clock)
    clock.now_s += ASK_AGAIN_S
    await session.read(THREE)
    asked = len(two_phases.asked)
    clock.now_s += ASK_AGAIN_S / 2
    await session.read(THREE)
    assert len(two_phases.asked) == asked + 1


async def test_what_was_learned_holds_for_the_next_session(two_phases):
    kept = (await learn_absent(two_phases, HandClock())).learned.to_json()
    again = made(two_phases, memory=DeviceMemory.from_json(kept))
    before = len(two_phases.asked)
    assert errors(await again.read(THREE)) == [None, None, "refused"]
    assert two_phases.asked[before:] == [(4, 0, 4)]


async def test_a_device_that_takes_fewer_registers_is_asked_for_fewer():
    points = [f"{q}_{p}" for q in ("voltage", "current", "active_power") for p in "abc"]
    device, clock = Device(**dict.fromkeys(points, ONE)), HandClock()
    session = made(device, clock)
    for _ in range(2):
        device.script = [3]
        assert errors(await session.read(points)) == [None] * 9
        clock.now_s += ABSENT_AFTER_S
    assert session.learned.learned.count_max == 9
    first = len(device.asked)
    await session.read(points)
    assert all(count <= 9 for _, _, count in device.asked[first:])


@pytest.mark.parametrize("code", [2, 3])
async def test_what_is_billed_comes_out_of_one_request_again_after_a_passing_refusal(code):
    device, clock = Device(**{IMPORT: ONE, "active_export_total": ONE}), HandClock()
    session = made(device, clock)
    both = [IMPORT, "active_export_total"]
    device.script = [code]
    assert errors(await session.read(both)) == [None, None]
    assert len(device.asked) == 3  # it was cut for now
    clock.now_s += ABSENT_AFTER_S
    await session.read(both)
    assert device.asked[3:] == [(4, 0x48, 4)]
    assert session.learned == DeviceMemory()


async def test_exception_3_for_a_register_that_is_not_there_does_not_shrink_requests_for_good():
    class Refuses3(Device):
        async def exchange(self, request):
            asked = parse_request(request.payload, tcp=self.tcp)
            wanted = range(asked.address, asked.address + asked.count)
            self.script = [None if all(at in self.words for at in wanted) else 3]
            return await super().exchange(request)

    device, clock = Refuses3(**dict.fromkeys(THREE, ONE)), HandClock()
    for at in (4, 5):
        del device.words[at]
    session = await learn_absent(device, clock)
    assert session.learned.learned.count_max is None
    first = len(device.asked)
    assert errors(await session.read(THREE)) == [None, None, "refused"]
    assert device.asked[first:] == [(4, 0, 4)]


async def test_registers_tried_by_hand_teach_nothing(two_phases):
    clock = HandClock()
    session = made(two_phases, clock)
    for _ in range(2):
        await session.read(["reg:4:4:2", "reg:4:6:2"], priority=Priority.ON_DEMAND)
        clock.now_s += ABSENT_AFTER_S
    assert session.learned == DeviceMemory()


async def test_requests_are_planned_by_what_they_cost_on_the_line():
    device = Device(voltage_a=ONE, frequency=ONE)
    device.words.update(dict.fromkeys(range(200), 0))
    for line, requests in ((Line.tcp(turnaround_ms=100), 1), (Line.serial(1200), 2)):
        session = made(device, line=line)
        before = len(device.asked)
        await session.read(["voltage_a", "frequency"])
        assert len(device.asked) - before == requests
    asks = made(device).asks(["voltage_a", "current_a"])
    assert [(ask.points, ask.unused) for ask in asks] == [(("voltage_a", "current_a"), 4)]


def test_a_state_that_cannot_be_used_is_told():
    good = DeviceMemory().to_json()
    chain = {"base": 0, "models": [[1, 2, 70_000]]}
    for tree in ({}, {"schema": "modbus_learned/1"}, good | {"told": []}, good | {"chain": chain}):
        with pytest.raises(LocalProtocolError, match="no modbus_device/1"):
            DeviceMemory.from_json(tree)


# -- SunSpec


class SunSpec(Device):
    """A device with a chain of models, all registers of which are there."""

    def __init__(self, models=(1, 103), *, base=40_000, **values):
        super().__init__(any_sunspec())
        self.lay(models, base)
        for point, value in values.items():
            self.set(point, value)

    def lay(self, models, base=40_000):
        chain = chain_of(models, base=base)
        self.words = dict.fromkeys(range(base, chain.end + 2), 0)
        self.words.update(zip(range(base, base + 2), MARKER, strict=True))
        for model in chain.models:
            self.words[model.address], self.words[model.address + 1] = model.id, model.length
        self.words[chain.end], self.words[chain.end + 1] = END_ID, 0
        self.profile = sunspec_profile(chain)

    def set(self, point, value):
        register = self.profile.register(point)
        if isinstance(value, tuple):
            value, self.words[register.scale_address] = value[0], value[1] & 0xFFFF
        power = self.words.get(register.scale_address, 0)
        power -= 0x10000 if power & 0x8000 else 0
        for at, word in enumerate(encode(register, value, power=power)):
            self.words[register.address + at] = word


def sunspec_session(device, **more):
    return made(device, profile=any_sunspec(), **more)


@pytest.mark.parametrize("base", [40_000, 50_000, 0])
async def test_a_sunspec_device_is_walked_at_first_contact_and_read_by_its_own_models(base):
    device = SunSpec(
        base=base, active_power_total=(Decimal("-1.5"), 1), frequency=(Decimal("50.01"), -2)
    )
    session = sunspec_session(device)
    power, hertz = await session.read(["active_power_total", "frequency"])
    assert (power.value, hertz.value) == (Decimal("-1.50"), Decimal("50.01"))
    assert power.exchange is hertz.exchange  # with its factor, in one request
    before = len(device.asked)
    await session.read(["active_power_total"])
    assert len(device.asked) == before + 1  # it is not walked again


async def test_the_walk_is_kept_for_the_next_session():
    device = SunSpec(active_power_total=(Decimal(1), 0))
    first = sunspec_session(device)
    await first.read(["active_power_total"])
    memory = DeviceMemory.from_json(first.learned.to_json())
    assert [m.id for m in memory.chain.models] == [1, 103]
    before = len(device.asked)
    (result,) = await sunspec_session(device, memory=memory).read(["active_power_total"])
    assert result.value == 1
    assert len(device.asked) == before + 1


async def test_models_that_moved_are_noticed_before_a_number_is_taken_for_another():
    notices = []
    device = SunSpec((1, 101), active_power_total=(Decimal(2), 0))
    session = sunspec_session(device, notice=notices.append)
    await session.read(["active_power_total"])
    device.lay((1, 103, 201))
    device.set("active_power_total", (Decimal(7), 0))
    (result,) = await session.read(["active_power_total"])
    assert result.value == 7
    (moved,) = [n for n in notices if n.name == "models_changed"]
    assert (moved.fields["was"], moved.fields["now"]) == ([1, 101], [1, 103, 201])
    assert session.learned.chain.models[1].id == 103


async def test_a_device_that_stands_for_no_model_gives_no_value_and_is_walked_again():
    device = SunSpec(active_power_total=(Decimal(1), 0))
    device.words[40_000] = 0
    session = sunspec_session(device)
    (result,) = await session.read(["active_power_total"])
    assert isinstance(result.error, BadReply)
    assert error_code(result.error) == "no_sunspec"
    device.words[40_000] = MARKER[0]
    (result,) = await session.read(["active_power_total"])
    assert result.value == 1


async def test_registers_read_by_hand_need_no_models():
    device = SunSpec()
    device.words[40_000] = 0
    (result,) = await sunspec_session(device).read(["reg:3:40002:2"])
    assert result.value == 0x0001_0042
    assert device.asked == [(3, 40_002, 2)]


async def test_a_walk_that_meets_silence_is_not_kept():
    device = SunSpec(active_power_total=(Decimal(1), 0))
    device.script = [None, None, silent()]
    session = sunspec_session(device)
    (result,) = await session.read(["active_power_total"])
    assert error_code(result.error) == "no_answer"
    assert session.learned.chain is None
    (result,) = await session.read(["active_power_total"])
    assert result.value == 1


async def test_only_models_nobody_knows_give_an_error_and_no_value():
    device = SunSpec()
    device.words[40_070] = 60_000  # in the place of model 103
    (result,) = await sunspec_session(device).read(["active_power_total"])
    assert error_code(result.error) == "no_known_model"


# -- ratios and identity


def secondary(ct=40, **values):
    return Device(CHINT, ct_ratio=Decimal(ct), pt_ratio=ONE, **{IMPORT: Decimal(10), **values})


async def read_all(session, *points):
    return await session.read([IMPORT, *points])


async def test_agreeing_ratios_leave_no_doubt_and_are_asked_once_a_day():
    device, clock, notices = secondary(), HandClock(), []
    session = made(device, clock, ct=Decimal(40), notice=notices.append)
    (result,) = await read_all(session)
    assert (result.value, result.doubt) == (Decimal("10.00"), None)
    assert {n.stands for n in notices} == {False}
    asked = len(device.asked)
    clock.now_s += CHECK_EVERY_S - 1
    await read_all(session)
    assert len(device.asked) == asked + 1
    clock.now_s += 1
    await read_all(session)
    assert len(device.asked) == asked + 3


async def test_a_ratio_that_differs_is_told_once_and_holds_what_it_would_multiply():
    device, notices, clock = secondary(40), [], HandClock()
    session = made(device, clock, ct=Decimal(60), notice=notices.append)
    (energy,) = await read_all(session)
    assert (energy.value, energy.doubt.flag, energy.doubt.holds) == (10, "ratio", True)
    assert "40" in energy.doubt.reason
    assert "60" in energy.doubt.reason
    (told,) = [n for n in notices if n.stands]
    assert told.name == "ratio_mismatch"
    assert told.fields["differences"] == [{"point": "ct_ratio", "configured": "60", "device": "40"}]
    clock.now_s += CHECK_EVERY_S
    await read_all(session)
    assert len([n for n in notices if n.stands]) == 1


async def test_a_difference_is_asked_again_before_it_is_believed():
    device, notices = secondary(40), []
    before = dict(device.words)
    session = made(device, ct=Decimal(40), notice=notices.append)
    device.set("ct_ratio", Decimal(41))

    class Flickers(dict):
        reads = 0

        def __getitem__(self, at):
            if at == CHINT.register("ct_ratio").address:
                self.reads += 1
                if self.reads > 1:
                    return before[at]
            return super().__getitem__(at)

    device.words = Flickers(device.words)
    (energy,) = await read_all(session)
    assert not [n for n in notices if n.stands]
    assert energy.doubt.flag == "ratio_unchecked"
    (energy,) = await read_all(session)
    assert energy.doubt is None


async def test_a_ratio_that_changed_is_proposed_as_a_dated_event():
    device, notices, clock = secondary(40), [], HandClock()
    session = made(device, clock, ct=Decimal(40), notice=notices.append)
    await read_all(session)
    clock.now_s += CHECK_EVERY_S
    device.set("ct_ratio", Decimal(60))
    (energy,) = await read_all(session)
    assert energy.doubt.holds
    (changed,) = [n for n in notices if n.name == "ratio_changed"]
    assert changed.stands is None
    assert (changed.fields["point"], changed.fields["was"], changed.fields["now"]) == (
        "ct_ratio", "40", "60",
    )  # fmt: skip
    assert changed.fields["after"] < changed.fields["before"]


async def test_ratios_a_device_refuses_to_tell_raise_no_doubt():
    device = secondary()
    for point in ("ct_ratio", "pt_ratio"):
        del device.words[CHINT.register(point).address]
    (result,) = await read_all(made(device, ct=Decimal(40), notice=lambda _n: None))
    assert (result.value, result.doubt) == (10, None)


async def test_silence_at_the_check_costs_one_time_out_and_no_more():
    device = secondary()
    device.script = [silent()]
    (result,) = await read_all(made(device, ct=Decimal(40), notice=lambda _n: None))
    assert error_code(result.error) == "no_answer"
    assert len(device.asked) == 1


async def test_nobody_who_does_not_listen_is_told():
    device = secondary()
    (result,) = await read_all(made(device, ct=Decimal(60)))
    assert (result.doubt, len(device.asked)) == (None, 1)


async def test_another_kind_of_device_holds_the_counters_and_not_the_voltages():
    device = Device(ABB, model="B23", voltage_a=Decimal(230), **{IMPORT: ONE})
    notices, clock = [], HandClock()
    session = made(device, clock, notice=notices.append)
    await read_all(session)
    device.set("model", "B24")
    again = made(device, clock, notice=notices.append, memory=session.learned)
    energy, voltage = await read_all(again, "voltage_a")
    assert (energy.doubt.flag, energy.doubt.holds, voltage.doubt) == ("device_changed", True, None)
    (told,) = [n for n in notices if n.stands]
    assert (told.name, told.fields["was"], told.fields["now"]) == (
        "device_changed", {"model": "B23"}, {"model": "B24"},
    )  # fmt: skip
    # It stays so over restarts, until somebody decides.
    third = made(device, clock, notice=notices.append, memory=again.learned)
    (energy,) = await read_all(third)
    assert energy.doubt.holds
    device.set("model", "B23")
    fourth = made(device, clock, notice=notices.append, memory=third.learned)
    (energy,) = await read_all(fourth)
    assert energy.doubt is None
    assert notices[-1].stands is False


async def test_a_doubtful_register_makes_suspect_and_not_held():
    device = Device(ACREL, ct_ratio=Decimal(40), **{IMPORT: ONE})
    assert ACREL.register("ct_ratio").doubtful
    (energy,) = await read_all(made(device, ct=Decimal(50), notice=lambda _n: None))
    assert (energy.doubt.flag, energy.doubt.holds) == ("ratio", False)
