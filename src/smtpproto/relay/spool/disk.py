"""What the spool does to files outside of its database, in one place: to count, and to fail."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

__all__ = ["Disk"]


class Disk:
    """What the spool does to files outside of SQLite, one method each.

    Replace it to count or to fail. All of them block, and raise OSError.
    """

    def make_directory(self, path: Path) -> None:
        """Make a directory for us alone, and those above it, durably; it may be there already."""
        if not path.is_dir():
            self.make_directory(path.parent)
            path.mkdir(mode=0o700, exist_ok=True)
            self.sync_directory(path.parent)

    def create(self, path: Path) -> int:
        """Open a new file to append to, for us alone."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def write(self, file: int, octets: bytes | bytearray) -> None:
        """Write all of `octets`."""
        rest = memoryview(octets)
        while rest:
            rest = rest[os.write(file, rest) :]

    def sync(self, file: int) -> None:
        """Return when the file is on the disk, and not only in its cache."""
        if sys.platform == "darwin":
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
        else:
            os.fsync(file)

    def close(self, file: int) -> None:
        os.close(file)

    def sync_file(self, path: Path) -> None:
        """Return when a file that somebody else has written is on the disk."""
        file = os.open(path, os.O_RDWR)
        try:
            self.sync(file)
        finally:
            self.close(file)

    def rewrite(self, path: Path) -> None:
        """Write what a file has once more, and return when it is on the disk.

        For a sync that has failed may be the last that spoke of it: the system takes it for clean.
        """
        file = os.open(path, os.O_RDWR)
        try:
            offset = 0
            while octets := os.pread(file, 1 << 20, offset):
                offset += os.pwrite(file, octets, offset)
            self.sync(file)
        finally:
            self.close(file)

    def sync_directory(self, path: Path) -> None:
        """Return when the names in the directory are on the disk."""
        file = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.sync(file)
        finally:
            self.close(file)

    def link(self, path: Path, new: Path) -> None:
        """Give a file one more name, which nothing has yet."""
        os.link(path, new)

    def rename(self, path: Path, new: Path) -> None:
        """Give a file another name, in one step, and take it from what has it."""
        path.replace(new)

    def remove(self, path: Path) -> None:
        """Remove a file; it may be gone already."""
        path.unlink(missing_ok=True)

    def read(self, path: Path, offset: int, octets: int) -> bytes:
        """Read up to so many octets from an offset."""
        file = os.open(path, os.O_RDONLY)
        try:
            return os.pread(file, octets, offset)
        finally:
            self.close(file)

    def size(self, path: Path) -> int:
        """Return how many octets a file has."""
        return path.stat().st_size

    def names(self, path: Path) -> list[str]:
        """List a directory."""
        return os.listdir(path)

    def free(self, path: Path) -> int:
        """Return how many octets there is room for where a directory is."""
        room = os.statvfs(path)
        return room.f_bavail * room.f_frsize if room.f_blocks else sys.maxsize  # it has no size
