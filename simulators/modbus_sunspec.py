"""SunSpec devices: a chain of models with its marker and end, and scale factors of its own.

The values come from the same truth as those of any other device; only where they stand is told by
the models. A chain can be broken on purpose.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Literal

from protocols.modbus.sunspec import BASES, END_ID, MARKER, Chain, chain_of, sunspec_profile
from simulators.meter645 import TruthLog
from simulators.modbus_meter import ModbusDevice, ModbusSettings
from simulators.modbus_source import Source

Break = Literal["no_marker", "no_length", "no_id", "no_end", "beyond_the_end"]

# Powers of ten with which a device of usual size fits its 16 bits.
_POWERS: Mapping[str, int] = {"A": -2, "V": -1, "W": 0, "VA": 0, "var": 0, "Hz": -2, "%": -1}
_MADE_BY = "headend simulators"


def sunspec_device(
    settings: ModbusSettings,
    source: Source,
    *,
    clock: Callable[[], int],
    models: Sequence[int] = (1, 103),
    base: int = BASES[0],
    common_length: int = 66,
    powers: Mapping[str, int] | None = None,
    broken: Break | None = None,
    grid: Source | None = None,
    truth_log: TruthLog | None = None,
) -> ModbusDevice:
    """A device with these models, in this order, from `base` on.

    `powers`: scale factors by the unit of what they scale, where they are not the usual ones.
    `broken`: what is wrong with the chain behind its first model. `grid`: what the meters' models
    of an inverter measure. LocalProtocolError for a model that is not known.
    """
    chain = chain_of(models, base=base, common_length=common_length)
    profile = sunspec_profile(chain)
    told = {**_POWERS, **(powers or {})}
    by_address = {
        one.scale_address: told.get(one.unit, 0)
        for one in profile.registers.values()
        if one.scale_address is not None
    }
    constants: dict[str, Decimal | str] = {
        "manufacturer": _MADE_BY,
        "model": f"S{models[-1]}",
        "firmware": "1.0",
        "status": Decimal(4),
    }
    return ModbusDevice(
        settings,
        profile,
        source,
        clock=clock,
        truth_log=truth_log,
        grid=grid,
        constants=constants,
        powers=by_address,
        fixed=_fixed(chain, broken),
    )


def _fixed(chain: Chain, broken: Break | None) -> dict[int, int]:
    """Marker, heads and end of the chain."""
    words = dict(zip(range(chain.base, chain.base + len(MARKER)), MARKER, strict=True))
    for model in chain.models:
        words[model.address], words[model.address + 1] = model.id, model.length
    words[chain.end], words[chain.end + 1] = END_ID, 0
    at = chain.models[1].address if len(chain.models) > 1 else chain.end
    match broken:
        case "no_marker":
            words[chain.base] = 0
        case "no_length":
            words[at + 1] = 0
        case "no_id":
            words[at] = 0
        case "beyond_the_end":
            words[at + 1] = 0xFFF0
        case "no_end":
            del words[chain.end], words[chain.end + 1]
        case None:
            pass
    return words
