"""What a disk may hold after the power was cut: any of what was not synced, and any part of it.

Of what was written since a file's last sync the disk may have nothing, all, or anything between,
in any order, by sectors; a write that was under way may have left rubbish where it was to go, and
nowhere else (which SQLite calls powersafe overwrite). Only what writes the same once more leaves
a sector as it was. The same goes for names in a directory. A sync that failed leaves what it was
for in doubt for ever: the next one says nothing of it, for the system may think these pages clean.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from attrs import define, field

from tests.relay.tape import (
    Create,
    Link,
    MakeDirectory,
    Operation,
    Remove,
    Rename,
    Sync,
    SyncDirectory,
    Truncate,
    Write,
)

__all__ = [
    "WAYS",
    "Dropped",
    "Image",
    "Kept",
    "LastTorn",
    "NamesAlone",
    "Platter",
    "Torn",
    "Way",
]

SECTOR = 512

#: Path -> content; None for a directory.
Image: TypeAlias = dict[Path, bytes | None]


@define
class _Change:
    """To a file. `doubtful`: a sync that was to bring it to the disk has failed."""

    operation: Write | Truncate
    doubtful: bool = False


@define(eq=False)
class _File:
    """`safe` is what the disk surely has, but for `changes` since, in their order."""

    safe: bytearray = field(factory=bytearray)
    changes: list[_Change] = field(factory=list[_Change])
    synced: int = 0  # so many of the changes are doubtful, or safe because of a later sync

    def sync(self) -> None:
        # What is behind a doubtful change cannot be merged into `safe` before it.
        kept: list[_Change] = []
        for change in self.changes:
            if change.doubtful or kept:
                kept.append(change)
            else:
                _apply(self.safe, change.operation)
        self.changes = kept
        self.synced = len(kept)

    def fail(self) -> None:
        for change in self.changes[self.synced :]:
            change.doubtful = True
        self.synced = len(self.changes)

    def unsure(self) -> list[bool]:
        """Tell of each change whether it may be missing."""
        return [change.doubtful or at >= self.synced for at, change in enumerate(self.changes)]


def _apply(octets: bytearray, operation: Write | Truncate) -> None:
    if isinstance(operation, Truncate):
        del octets[operation.size :]
        octets.extend(bytes(max(0, operation.size - len(octets))))
    else:
        end = operation.offset + len(operation.octets)
        octets.extend(bytes(max(0, operation.offset - len(octets))))
        octets[operation.offset : end] = operation.octets


#: Names that change together: path -> what it names now; None where it is gone.
_Names: TypeAlias = "dict[Path, _File | _Directory | None]"


class _Directory:
    pass


def _name(there: "dict[Path, _File | _Directory]", names: _Names) -> None:
    for path, file in names.items():
        if file is None:
            there.pop(path, None)
        else:
            there[path] = file


class Way:
    """One way for a cut to go."""

    #: Whether unsynced names, and their removals, have reached the disk.
    names = True
    #: Whether unsynced data has.
    data = True

    def name(self, dice: random.Random) -> bool:
        return self.names

    def change(
        self, octets: bytearray, operation: Write | Truncate, dice: random.Random, last: bool
    ) -> None:
        """Bring to the disk what this way brings there of one unsynced operation."""
        if self.data:
            _apply(octets, operation)


class Dropped(Way):
    names = data = False


class Kept(Way):
    pass


class NamesAlone(Way):
    data = False


class DataAlone(Way):
    names = False


class SizesAlone(Way):
    """Files are as long as they should be, and empty: their octets had not been written yet."""

    def change(
        self, octets: bytearray, operation: Write | Truncate, dice: random.Random, last: bool
    ) -> None:
        if isinstance(operation, Write):
            octets.extend(bytes(max(0, operation.offset + len(operation.octets) - len(octets))))
        else:
            _apply(octets, operation)


class LastTorn(Way):
    """All is there, but of the very last write one half."""

    def change(
        self, octets: bytearray, operation: Write | Truncate, dice: random.Random, last: bool
    ) -> None:
        if last and isinstance(operation, Write):
            half = operation.octets[: len(operation.octets) // 2]
            operation = Write(operation.path, operation.offset, half)
        _apply(octets, operation)


class Torn(Way):
    """Any sector may be the new one, the old one, or rubbish; any name there or not."""

    def name(self, dice: random.Random) -> bool:
        return dice.random() < 0.5

    def change(
        self, octets: bytearray, operation: Write | Truncate, dice: random.Random, last: bool
    ) -> None:
        whole = dice.random()
        if whole < 0.4:
            return
        if whole < 0.7 or isinstance(operation, Truncate):
            _apply(octets, operation)
            return
        start, end = operation.offset, operation.offset + len(operation.octets)
        while start < end:
            stop = min(end, (start // SECTOR + 1) * SECTOR)
            piece = operation.octets[start - operation.offset : stop - operation.offset]
            fate = dice.random()
            if fate < 0.1 and not operation.again:
                piece = dice.randbytes(len(piece))
            if fate < 0.6:
                _apply(octets, Write(operation.path, start, piece))
            start = stop


WAYS: Sequence[Way] = (
    Dropped(),
    Kept(),
    LastTorn(),
    NamesAlone(),
    DataAlone(),
    SizesAlone(),
    Torn(),
    Torn(),
)


class Platter:
    """A disk that operations are played to, one after another; `root` is there at the beginning."""

    def __init__(self, root: Path, image: Image | None = None) -> None:
        self.root = root
        self.operations = 0
        self._files: dict[Path, _File] = {}  # as the system sees them
        self._on_disk: dict[Path, _File | _Directory] = {}
        self._pending: list[tuple[Path, _Names]] = []  # directory, what happened to names in it
        for path, content in (image or {}).items():
            if content is None:
                self._on_disk[path] = _Directory()
            else:
                self._on_disk[path] = self._files[path] = _File(bytearray(content))

    def play(self, operation: Operation) -> None:
        self.operations += 1
        match operation:
            case Create(path):
                self._files[path] = _File()
                self._rename({path: self._files[path]})
            case MakeDirectory(path):
                self._rename({path: _Directory()})
            case Remove(path):
                del self._files[path]
                self._rename({path: None})
            case Link(path, new):
                self._files[new] = self._files[path]
                self._rename({new: self._files[path]})
            case Rename(path, new):
                self._files[new] = self._files.pop(path)
                self._rename({path: None, new: self._files[new]})
            case Write(path) | Truncate(path):
                self._files[path].changes.append(_Change(operation))
            case Sync(path, failed):
                if failed:
                    self._files[path].fail()
                else:
                    self._files[path].sync()
            case SyncDirectory(path):
                for directory, names in self._pending:
                    if directory == path:
                        _name(self._on_disk, names)
                self._pending = [pending for pending in self._pending if pending[0] != path]

    def _rename(self, names: _Names) -> None:
        (directory,) = {path.parent for path in names}
        if directory.is_relative_to(self.root):
            self._pending.append((directory, names))

    def cut(self, way: Way, seed: int) -> Image:
        """Return what is on the disk if the power is cut here and it goes this way."""
        dice = random.Random(f"{seed} {self.operations}")
        there = dict(self._on_disk)
        left: set[Path] = set()
        for _, names in self._pending:
            # What happened to one name did so in this order.
            if left.isdisjoint(names) and way.name(dice):
                _name(there, names)
            else:
                left.update(names)
        last = self._last()
        image: Image = {}
        for path, file in sorted(there.items(), key=lambda item: item[0]):
            if path.parent != self.root and path.parent not in image:
                continue  # its directory is not there
            content = self._content(file, way, dice, last) if isinstance(file, _File) else None
            image[path] = content
        return image

    def _last(self) -> _Change | None:
        changes = [f.changes[-1] for f in self._files.values() if f.changes[f.synced :]]
        return changes[0] if len(changes) == 1 else None

    @staticmethod
    def _content(file: _File, way: Way, dice: random.Random, last: _Change | None) -> bytes:
        octets = bytearray(file.safe)
        for change, unsure in zip(file.changes, file.unsure(), strict=True):
            if unsure:
                way.change(octets, change.operation, dice, change is last)
            else:
                _apply(octets, change.operation)
        return bytes(octets)
