"""Waits for conditions, never for a time."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable


async def eventually(
    condition: Callable[[], object | Awaitable[object]],
    *,
    timeout_s: float = 15.0,
    every_s: float = 0.005,
    what: str = "",
):
    """The first true value of `condition` (a function, or one that gives an awaitable).

    AssertionError with `what` when it does not come in `timeout_s`.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if loop.time() > end:
            msg = f"did not come true in {timeout_s} s: {what or condition}"
            raise AssertionError(msg)
        await asyncio.sleep(every_s)
