"""Whatever a master sends, a simulated meter of either edition says whole frames or nothing."""

from random import Random

import pytest
from hypothesis import settings

from protocols.dlt645.catalogue import DIGITS_1997, Edition
from protocols.dlt645.explain import explain
from protocols.dlt645.frame import DELIMITER, WAKE_UP, parse
from protocols.framing import FrameFound, Framer
from simulators.energy import Timeline
from simulators.meter645 import MeterSettings
from simulators.meterbus import MeterBus
from simulators.models import make_meter
from tests.fuzz645.inputs import OWN, Inputs, catalogue, framed

INPUTS_AN_EXAMPLE = 8
NOW_MS = 1_795_619_812_280
DAY_MS = 86_400_000
ASKED = {
    "dlt645-2007": (0x11, 0x11, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1B,
                    0x1C, 0x1D, 0x03, 0x08),
    "dlt645-1997": (0x01, 0x01, 0x01, 0x02, 0x03, 0x04, 0x08, 0x0A, 0x0C, 0x0F, 0x10),
}  # fmt: skip
TO = (OWN, OWN, OWN, "AAAAAAAAAAAA", "999999999999", "AAAAAAAA0017")


def request(rng: Random, edition: Edition, dis: list[str]) -> bytes:
    """Something that a meter of the edition is asked, parameters right or wrong."""
    width = DIGITS_1997 if edition == "dlt645-1997" else 8
    di = rng.choice([di for di in dis if len(di) == width])
    data = bytes.fromhex(di)[::-1] + rng.randbytes(rng.choice((0, 0, 0, 1, 4, 6, 8, 12, 16)))
    if rng.random() < 0.2:
        data = rng.randbytes(rng.choice((0, 1, 4, 6, 12, 16)))
    return framed(rng.choice(TO), rng.choice(ASKED[edition]), data)


@pytest.mark.parametrize("edition", ["dlt645-2007", "dlt645-1997"])
def test_a_meter_says_whole_frames_or_nothing(edition: Edition) -> None:
    now_ms = NOW_MS
    meter = make_meter(
        "pv3",
        MeterSettings(OWN, reply_delay_ms=5, seed=1, edition=edition),
        timeline=Timeline(NOW_MS - 5 * DAY_MS),
        clock=lambda: now_ms,
    )
    line, inputs, dis = MeterBus([meter]), Inputs(97), catalogue()
    said = 0
    for number in range(INPUTS_AN_EXAMPLE * settings().max_examples):
        rng = inputs.rng(number)
        asked = request(rng, edition, dis) if number % 2 else inputs.make(rng)
        now_ms += 1000
        line.idle()
        for sent in line.receive(asked, ()):
            said += 1
            (event,) = Framer(DELIMITER).feed(sent.data.lstrip(WAKE_UP))
            assert isinstance(event, FrameFound)
            frame = parse(event.raw)
            assert frame.from_meter
            (told,) = explain(event.raw, edition=edition)
            assert told["valid"]
            assert not told["errors"], f"{asked.hex()} -> {event.raw.hex()}: {told['errors']}"
    assert said > INPUTS_AN_EXAMPLE
