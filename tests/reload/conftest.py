"""A street with its daemon, running."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from reload_world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        yield made


@pytest.fixture
async def street(world: World) -> World:
    """The daemon reads every meter."""
    await world.start()
    for meter in world.text.meters:
        await world.read_after(meter, 1)
    return world
