"""Finding out what a SunSpec device has, and noticing when it has something else.

The chain of models is walked at the first contact and kept. From then on every request of values
holds the head of their model as well wherever the plan puts them together, so that a device whose
models have moved never has one number taken for another.
"""

from collections.abc import Iterable, Mapping, Sequence

from headend.domain.errors import BadReply, Busy, HeadendError, Refused
from headend.drivers.modbus_ask import Asker, Talk, refusal_code
from headend.drivers.modbus_blocks import Got
from protocols.errors import ProtocolError
from protocols.modbus.register import Register
from protocols.modbus.sunspec import FUNCTION, HEAD_WORDS, Chain, Walk

HEAD = "model:"
_SAYS_NO = frozenset({1, 2, 3})


async def find_chain(asker: Asker, talk: Talk) -> tuple[Chain | None, Exception | None]:
    """The device's models, or why they are not known.

    A chain that breaks is taken up to where it does; one that ends because the device did not
    answer is not taken at all.
    """
    walk = Walk()
    while (span := walk.ask) is not None:
        try:
            walk.take(await asker.ask(span, talk, []))
        except Busy as error:
            return None, error
        except Refused as error:
            code = refusal_code(error)
            if code not in _SAYS_NO:
                return None, error
            walk.refuse(code)
        except (HeadendError, ProtocolError) as error:
            return None, error
    chain = walk.chain
    assert chain is not None
    if chain.models:
        return chain, None
    why = "the chain of its models is empty" if chain.problem is None else chain.problem.message
    return None, BadReply(f"unit {asker.unit} is no SunSpec device: {why}", code="no_sunspec")


def heads_of(chain: Chain, registers: Iterable[Register]) -> list[Register]:
    """The heads of the models that these registers belong to, as registers."""
    at = {one.address for one in registers if one.function == FUNCTION}
    return [
        Register(f"{HEAD}{model.id}", FUNCTION, model.address, "uint32", HEAD_WORDS)
        for model in chain.models
        if any(model.address <= one < model.behind for one in at)
    ]


def has_moved(chain: Chain, found: Sequence[Got]) -> str:
    """How the heads that came differ from the chain; empty when they do not."""
    known: Mapping[int, tuple[int, int]] = {m.address: (m.id, m.length) for m in chain.models}
    for got in found:
        for register in got.block.registers:
            if not register.point.startswith(HEAD):
                continue
            model, length = known[register.address]
            if got.error is not None:
                code = refusal_code(got.error)
                if code in _SAYS_NO:
                    return f"model {model} at {register.address} is refused (exception {code})"
                continue
            words = got.block.words_of(register, got.words)
            if words != (model, length):
                return (
                    f"at {register.address} stands model {words[0]} with {words[1]} registers, "
                    f"not model {model} with {length}"
                )
    return ""
