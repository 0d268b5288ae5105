"""A struck PostgreSQL is wholly gone before it is started again, and nothing of a world is left."""

import os
import signal
from pathlib import Path

from tests.kill.world import World, processes_in


def strike(world: World) -> None:
    """As the traps do."""
    pid = world.pid("postgresql")
    os.kill(pid, signal.SIGKILL)
    world.wait(lambda: world.is_dead("postgresql"), 10, "it does not die")
    assert world.ended_by_kill("postgresql")


def test_a_struck_postgresql_is_gone_with_all_its_processes_and_keeps_what_it_committed(
    tmp_path: Path,
) -> None:
    """Also with those that came after it was looked at, such as one for a connection."""
    with World(tmp_path, servers=True) as world:
        server = world.postgresql
        with world.open_billing() as connection:
            connection.execute("CREATE TABLE kept (n INTEGER)")
            connection.execute("INSERT INTO kept VALUES (7)")
            before = processes_in(server.data)
            assert server.pid in before
            assert len(before) > 3
            strike(world)
            world.restart("postgresql")
        assert not set(before) & set(processes_in(server.data))
        assert "was not properly shut down" in server.log()
        with world.open_billing() as connection:
            assert connection.execute("SELECT n FROM kept").fetchall() == [(7,)]


def test_a_world_is_left_clean_though_a_server_lies_struck(tmp_path: Path) -> None:
    with World(tmp_path, servers=True) as world:
        strike(world)
        os.kill(world.pid("influxdb"), signal.SIGKILL)
        world.wait(lambda: world.is_dead("influxdb"), 10, "it does not die")
        assert world.ended_by_kill("influxdb")
    assert processes_in(world.postgresql.data) == []
    assert not world.postgresql.folder.exists()
