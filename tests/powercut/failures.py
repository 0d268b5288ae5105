"""The n-th of something fails: what is to fail, and the counting."""

from dataclasses import dataclass

from tests.powercut import vfs
from tests.powercut.vfs import Fault


@dataclass
class Nth:
    """A judge that lets the first `n` - 1 of some steps pass and `times` from there on fail.

    `asked` counts them all; `hits` the failures.
    """

    kinds: frozenset[str]
    n: int
    fault: Fault
    times: int = 1
    asked: int = 0
    hits: int = 0

    def __call__(self, kind: str, name: str) -> Fault | None:
        if kind not in self.kinds:
            return None
        self.asked += 1
        if self.n <= self.asked < self.n + self.times:
            self.hits += 1
            return self.fault
        return None


@dataclass(frozen=True)
class Way:
    """A way to fail."""

    kinds: frozenset[str]
    fault: Fault
    times: int = 1

    def nth(self, n: int) -> Nth:
        """Its n-th."""
        return Nth(self.kinds, n, self.fault, self.times)


def _of(*kinds: str) -> frozenset[str]:
    return frozenset(kinds)


WAYS: dict[str, Way] = {
    "a write": Way(_of("write"), Fault(vfs.IOERR_WRITE)),
    "a write, half done": Way(_of("write"), Fault(vfs.IOERR_WRITE, torn=True)),
    "a write for want of room": Way(_of("write"), Fault(vfs.FULL), 3),
    "a sync": Way(_of("sync"), Fault(vfs.IOERR_FSYNC)),
    "a sync that forgets": Way(_of("sync"), Fault(vfs.IOERR_FSYNC, forgets=True), 2),
    "an open, delete or truncate": Way(
        _of("open", "delete", "truncate", "rename"), Fault(vfs.CANTOPEN)
    ),
    "a read": Way(_of("read"), Fault(vfs.IOERR_READ)),
    "everything for a while": Way(
        _of("write", "sync", "open", "delete", "truncate", "read"), Fault(vfs.IOERR_WRITE), 12
    ),
}
