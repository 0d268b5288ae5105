"""The documents for people are true: every command block in them is run."""

import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
from docs_guide import BIN, EXIT_CODE, Shell, blocks, commands

ROOT = Path(__file__).parents[2]
RUN = (
    "README.md",
    "docs/field-guide.md",
    "docs/operations-guide.md",
    "docs/new-modbus-meter.md",
)
TWINS = (
    ("README.md", "README.zh-CN.md"),
    ("docs/field-guide.md", "docs/field-guide.zh-CN.md"),
    ("docs/new-modbus-meter.md", "docs/new-modbus-meter.zh-CN.md"),
)
PAGES = sorted(
    p.relative_to(ROOT).as_posix() for p in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
)
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
SCHEMA_NAMED = re.compile(r"""schema["']?\s*[:=]\s*["']([a-z_]+)/\d+["']""", re.IGNORECASE)
SCHEMA_CONSTANT = re.compile(r"""SCHEMA\w*\s*=\s*["']([a-z_]+)/\d+["']""")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", RUN)
def test_every_command_of_a_document_does_what_it_says(name, place, demo):
    (first,) = _json_lines(demo, "readings", "--meter", "M-0002")[:1]
    with Shell(place, read_id=first["read_id"]) as shell:
        count = 0
        for block in blocks(ROOT / name):
            ran = shell.do(block)
            count += block.kind == "sh"
            for one in ran:
                where = f"{name}:{block.line}: {one.command}\n{one.out}{one.err}"
                assert one.code == one.wanted, f"exit code {one.code}: {where}"
                assert "Traceback" not in one.err, where
            if len(ran) == 1 and block.shown is not None:
                _looks_like(ran[0], block.shown, f"{name}:{block.line}")
        for command, code, said in shell.end():
            assert code == 0, f"{command} ended with {code}: {said}"
            assert "Traceback" not in said, said
    assert count >= 3


def _looks_like(ran, shown, where):
    """What is printed has the shape that the document shows; frames have every byte of it."""
    if ran.command.startswith("headend frame"):
        assert ran.out.strip() == shown.strip(), where
        return
    printed = (ran.out or ran.err).splitlines()
    expected = shown.splitlines()
    assert printed, where
    if ran.command.startswith("headend trace"):
        labels = [line[:14].strip() for line in printed]
        assert labels == [line[:14].strip() for line in expected], where
        return
    heads = [line for line in expected if not re.search(r"\d", line)]
    for head in heads:
        assert head.split() in [line.split() for line in printed], f"{where}: {head}"


@pytest.mark.parametrize(("one", "other"), TWINS)
def test_a_translation_has_the_same_commands_and_sessions(one, other):
    ours = [(b.kind, b.text) for b in blocks(ROOT / one) if b.kind in ("sh", "yaml")]
    theirs = [(b.kind, b.text) for b in blocks(ROOT / other) if b.kind in ("sh", "yaml")]
    assert ours == theirs
    assert len(blocks(ROOT / one)) == len(blocks(ROOT / other))


@pytest.mark.parametrize("name", PAGES)
def test_links_between_the_pages_lead_somewhere(name):
    page = ROOT / name
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        goal = (page.parent / target) if target else page
        assert goal.exists(), f"{name}: {target}"
        if anchor and goal.suffix == ".md":
            assert anchor[1:] in _anchors(goal), f"{name}: {target}{anchor}"


def _anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_every_command_named_in_the_documents_exists():
    known = subprocess.run(
        [BIN / "headend", "--help"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    names = set(re.findall(r"^    (\w+)(?: |$)", known, re.MULTILINE))
    assert {"demo", "run", "read", "frame", "billing"} <= names
    for name in RUN:
        for block in blocks(ROOT / name):
            for command, _code in commands(block) if block.kind == "sh" else ():
                for used in re.findall(r"\bheadend (\w+)", EXIT_CODE.sub("", command)):
                    assert used in names, f"{name}:{block.line}: {command}"


def test_every_json_shape_has_its_schema():
    named = set()
    for room in ("headend", "protocols"):
        for path in (ROOT / room).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            named |= set(SCHEMA_NAMED.findall(text)) | set(SCHEMA_CONSTANT.findall(text))
    assert {"frame", "reading", "demo", "meter_exchange", "feed_replay"} <= named
    folder = ROOT / "docs" / "schemas"
    assert {name for name in named if not (folder / f"{name}.schema.json").exists()} == set()
    for path in folder.glob("*.json"):
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))


def _json_lines(demo, *arguments):
    done = subprocess.run(
        [BIN / "headend", *arguments, "--config", demo.config, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
