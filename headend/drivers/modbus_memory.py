"""What one Modbus device has shown of itself, as a plain value that is kept over restarts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from protocols.errors import LocalProtocolError
from protocols.modbus.learned import Learned
from protocols.modbus.sunspec import MODELS_MAX, Chain, Model

SCHEMA = "modbus_device/1"
TOLD_MAX = 16
TEXT_MAX = 256


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """`learned`: what it refuses. `chain`: the models of a SunSpec device. `told`: which device it
    says it is, and its transformers' ratios, by point; `told_ms`: when it last said so.
    """

    learned: Learned = field(default_factory=Learned)
    chain: Chain | None = None
    told: Mapping[str, str] = field(default_factory=dict)
    told_ms: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it, of shape modbus_device/1."""
        chain = self.chain
        return {
            "schema": SCHEMA,
            "learned": self.learned.to_json(),
            "chain": None
            if chain is None
            else {
                "base": chain.base,
                "models": [[one.id, one.address, one.length] for one in chain.models],
            },
            "told": dict(self.told),
            "told_ms": self.told_ms,
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "DeviceMemory":
        """What `to_json` gave; LocalProtocolError(code="bad_state") for anything else."""
        try:
            return cls._from(tree)
        except (KeyError, TypeError, ValueError) as error:
            raise LocalProtocolError(
                f"this is no {SCHEMA} that was kept: {error}", code="bad_state"
            ) from error

    @classmethod
    def _from(cls, tree: Mapping[str, Any]) -> "DeviceMemory":
        if tree["schema"] != SCHEMA:
            raise ValueError(f"the schema is {tree['schema']!r}")
        told, told_ms = tree["told"], tree["told_ms"]
        if not isinstance(told, dict) or len(told) > TOLD_MAX:
            raise ValueError("told is no object of a few entries")
        return cls(
            Learned.from_json(tree["learned"]),
            _chain_from(tree["chain"]),
            {str(point): str(text)[:TEXT_MAX] for point, text in told.items()},
            None if told_ms is None else int(told_ms),
        )


def _chain_from(tree: Mapping[str, Any] | None) -> Chain | None:
    if tree is None:
        return None
    base, rows = _address(tree["base"]), tree["models"]
    if not isinstance(rows, list) or not 0 < len(rows) <= MODELS_MAX:
        raise ValueError("models is no list of a few models")
    return Chain(base, tuple(Model(*map(_address, row)) for row in rows))


def _address(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0xFFFF:
        raise ValueError(f"{value!r} is not 0 to 65535")
    return value
