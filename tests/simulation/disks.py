"""The disks of nodes: full, broken or read-only at times, and a process may die at any step."""

import errno
import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from tests.relay.tape import MakeDirectory, Operation, Remove, SyncDirectory, Tape

from .loop import Died, Life

if TYPE_CHECKING:
    from .nodes import Node

__all__ = ["FaultyDisk", "SQLiteDisk", "Trouble"]


@frozen
class Trouble:
    """What a disk has for a while: an errno, and how often it says so."""

    errno: int
    odds: float = 0.3

    def __str__(self) -> str:
        often = "" if self.odds < 1 else ", always"
        return f"{errno.errorcode[self.errno]}{often}"

    def refuses(self, operation: Operation, dice: random.Random) -> int:
        """Return the errno with which it refuses to do it; 0: it does it."""
        if isinstance(operation, SyncDirectory):
            return 0
        if isinstance(operation, (Remove, MakeDirectory)) and self.errno != errno.EROFS:
            return 0
        return self.errno if self.odds == 1 or dice.random() < self.odds else 0


class FaultyDisk(Tape):
    """A node's disk: a process may die at any step, and it is full or broken at times.

    What is done to it is played to the model of a disk, of which a power cut leaves what it likes.
    """

    def __init__(self, node: "Node", life: Life) -> None:
        super().__init__(real=False)
        self._node = node
        self._life = life

    def mark(self, mark: object) -> None:
        self._node.record(mark)

    def refuses(self, operation: Operation) -> int:
        self._life.step()
        return self._node.ask(operation)

    def sync(self, file: int) -> None:
        super().sync(file)
        self._life.step()

    def remove(self, path: Path) -> None:
        if path.exists():  # a start has nothing else to do with it
            super().remove(path)

    def free(self, path: Path) -> int:
        return 0 if self._node.full else 1 << 40


class SQLiteDisk(Tape):
    """The same for what SQLite does, of all nodes."""

    def __init__(self, nodes: Sequence["Node"]) -> None:
        super().__init__()  # with syncs, or those of directories would go unseen
        self._nodes = nodes
        self._known: dict[Path, Node] = {}

    def _of(self, path: Path) -> "Node":
        if path not in self._known:
            node = next(n for n in self._nodes if path.is_relative_to(n.directory))
            self._known[path] = node
        return self._known[path]

    def mark(self, mark: Any) -> None:
        self._of(mark.path).record(mark)

    def refuses(self, operation: Operation) -> int:
        node = self._of(operation.path)
        # Nothing can be raised through SQLite: the dead go on, and it has no effect.
        with suppress(Died):
            if node.life is not None:
                node.life.step()
        return node.ask(operation)
