"""The disks that a power cut could leave behind, from the log of what was done.

What was synced is there. Of what a file was given since its last sync any subset is there, in any
order, each write cut at sectors of 512 bytes; a write that is lost may have made the file longer
all the same (zeros). Names made, removed or changed since the directory's last sync may be so or
not. Nothing else may happen: bytes beside a write stay as they were, as `powersafe overwrite`
(which SQLite takes for granted on this system) says.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.powercut.vfs import Op, Recorder

SECTOR = 512

Image = dict[str, bytes]


@dataclass(slots=True)
class _File:
    durable: bytearray
    pending: list[Op] = field(default_factory=list)


@dataclass(slots=True)
class Disk:
    """What is known to be durable after the first steps of a log, and what is not yet."""

    files: dict[int, _File] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    names_pending: list[Op] = field(default_factory=list)

    @classmethod
    def at_start(cls, recorder: Recorder) -> "Disk":
        """As it was when recording began: all of it durable."""
        disk = cls()
        for name, (number, content) in recorder.base.items():
            disk.files[number] = _File(bytearray(content))
            disk.names[name] = number
        return disk

    def step(self, op: Op) -> None:
        """One more step was done."""
        match op.kind:
            case "create":
                self.files[op.file] = _File(bytearray())
                self.names_pending.append(op)
            case "write" | "truncate":
                self.files[op.file].pending.append(op)
            case "sync":
                file = self.files[op.file]
                for waiting in file.pending:
                    _apply(file.durable, waiting)
                file.pending.clear()
            case "forget":
                self.files[op.file].pending.clear()
            case "delete" | "rename":
                self.names_pending.append(op)
            case "dirsync":
                for waiting in self.names_pending:
                    _rename(self.names, waiting)
                self.names_pending.clear()
            case _:
                raise AssertionError(op.kind)

    @property
    def at_rest(self) -> bool:
        """Nothing waits for a sync: there is one image only."""
        return not self.names_pending and not any(f.pending for f in self.files.values())

    def least(self) -> Image:
        """Nothing that was not synced."""
        return {name: bytes(self.files[number].durable) for name, number in self.names.items()}

    def most(self) -> Image:
        """Everything, as after a kill of the process alone."""
        names = dict(self.names)
        for op in self.names_pending:
            _rename(names, op)
        return {name: _whole(self.files[number]) for name, number in names.items()}

    def some(self, random: Random) -> Image:
        """Any of the others."""
        names = dict(self.names)
        lose = random.choice((0.0, 0.5, 0.9, 1.0))
        for op in self.names_pending:
            if random.random() >= lose:
                _rename(names, op)
        return {name: _torn(self.files[number], random) for name, number in names.items()}


def _whole(file: _File) -> bytes:
    content = bytearray(file.durable)
    for op in file.pending:
        _apply(content, op)
    return bytes(content)


def _torn(file: _File, random: Random) -> bytes:
    content = bytearray(file.durable)
    ops = list(file.pending)
    how = random.choice(("all", "none", "prefix", "subset", "one", "all but one", "only last"))
    if how == "none" or not ops:
        return bytes(content)
    if how == "prefix":
        ops = ops[: random.randrange(len(ops) + 1)]
    elif how == "subset":
        ops = [op for op in ops if random.random() < 0.5]
    elif how == "one":
        ops = [random.choice(ops)]
    elif how == "all but one":
        del ops[random.randrange(len(ops))]
    elif how == "only last":
        ops = ops[-1:]
    if random.random() < 0.5:
        random.shuffle(ops)
    tear = random.random() < 0.6
    for op in ops:
        if op.kind == "write" and tear and random.random() < 0.5:
            _apply_torn(content, op, random)
        else:
            _apply(content, op)
    if random.random() < 0.2:
        longest = max((op.offset + len(op.data) for op in file.pending), default=0)
        content.extend(bytes(max(0, longest - len(content))))
    return bytes(content)


def _apply(content: bytearray, op: Op) -> None:
    if op.kind == "truncate":
        del content[op.offset :]
        content.extend(bytes(op.offset - len(content)))
    else:
        _put(content, op.offset, op.data)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _apply_torn(content: bytearray, op: Op, random: Random) -> None:
    keep = random.choice((0.1, 0.5, 0.9))
    at = op.offset
    end = op.offset + len(op.data)
    while at < end:
        until = min(end, (at // SECTOR + 1) * SECTOR)
        if random.random() < keep:
            _put(content, at, op.data[at - op.offset : until - op.offset])
        at = until


def _rename(names: dict[str, int], op: Op) -> None:
    match op.kind:
        case "create":
            names[op.name] = op.file
        case "delete":
            names.pop(op.name, None)
        case "rename":
            # Of a file whose making was lost there is nothing to rename.
            if names.get(op.name) == op.file:
                del names[op.name]
                names[op.other] = op.file


@dataclass(frozen=True, slots=True)
class Cut:
    """A disk after a power cut behind the first `at` steps; `nth` of those built for it."""

    at: int
    nth: int
    image: Image

    def lay_out(self, folder: Path) -> None:
        """Make it real."""
        folder.mkdir(parents=True)
        for name, content in self.image.items():
            (folder / name).write_bytes(content)


def cuts(
    recorder: Recorder, *, seed: int, variants: int, at: Sequence[int] | None = None
) -> Iterator[Cut]:
    """Disks for a cut at every step (or at those named), no two alike for one step.

    At each the least, the most, and `variants` others. What makes an image depends on the seed
    and the step alone, so that one of them can be built again.
    """
    disk = Disk.at_start(recorder)
    wanted = None if at is None else frozenset(at)
    for step in range(len(recorder.ops) + 1):
        if step:
            disk.step(recorder.ops[step - 1])
        if wanted is not None and step not in wanted:
            continue
        seen: set[bytes] = set()
        random = Random(f"{seed}:{step}")
        images = [disk.least(), disk.most()]
        if not disk.at_rest:
            images += [disk.some(random) for _ in range(variants)]
        for nth, image in enumerate(images):
            digest = fingerprint(image)
            if digest not in seen:
                seen.add(digest)
                yield Cut(step, nth, image)


def fingerprint(image: Image) -> bytes:
    """Equal for equal disks."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(image):
        digest.update(f"{name}:{len(image[name])}:".encode())
        digest.update(image[name])
    return digest.digest()
