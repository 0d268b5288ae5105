"""The broker guide is true: its commands are run, with the ports of a broker that is ours."""

import json
import os
import re
import shutil
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from docs_guide import Shell, blocks

from headend.feed.alarms import SUBJECTS
from headend.messages.connect_words import Code

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "broker-guide.md"
START = "mosquitto -d -c /tmp/broker/mosquitto.conf"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


class GuideShell(Shell):
    """Ports of our own; as root the broker stays root, for only root may look into this folder."""

    ports: dict[str, str]

    def _here(self, text):
        if os.getuid() == 0:
            text = text.replace(
                START, f"sed -i '1i user root' {START.rsplit(maxsplit=1)[-1]} && {START}"
            )
        for port, ours in self.ports.items():
            text = re.sub(rf"\b{port}\b", ours, text)
        return super()._here(text)


@pytest.fixture
def shell(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    with GuideShell(tmp_path) as one:
        one.ports = {"8883": free_port(), "1883": free_port()}
        copy = tmp_path / "config" / "mosquitto" / "mosquitto.conf"
        text = copy.read_text()
        for port, ours in one.ports.items():
            text = text.replace(f"listener {port}", f"listener {ours}")
        copy.write_text(text)
        yield one
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((tmp_path / "broker" / "pid").read_text()), signal.SIGTERM)


@pytest.mark.timeout(180)
def test_every_command_of_the_broker_guide_does_what_it_says(shell):
    states = []
    for block in blocks(GUIDE):
        for one in shell.do(block):
            where = f"{GUIDE.name}:{block.line}: {one.command}\n{one.out}{one.err}"
            assert one.code == one.wanted, f"exit code {one.code}: {where}"
            assert "Traceback" not in one.err, where
            if one.command.startswith("headend feed status"):
                states.append(one.out)
    assert len(states) == 2
    for shown in states:
        assert f"broker localhost:{shell.ports['8883']}: connected since" in shown
        assert "alarm" not in shown
    for command, code, said in shell.end():
        assert code == 0, f"{command} ended with {code}: {said}"
        assert "Traceback" not in said, said


def test_the_guide_names_every_code_and_every_alarm():
    text = GUIDE.read_text()
    first_cells = "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("|"))
    for word in (*Code, *SUBJECTS):
        assert f"`{word}`" in first_cells, word


def test_the_schema_of_the_feed_status_knows_every_code_and_every_alarm():
    schema = json.loads((ROOT / "docs/schemas/feed_status.schema.json").read_text())
    shape = schema["properties"]["connection"]["properties"]
    assert set(shape["code"]["enum"]) == {None, *(code.value for code in Code)}
    assert set(shape["alarms"]["items"]["properties"]["alarm"]["enum"]) == set(SUBJECTS)
