"""What has just come in, in memory: most of it is on its way out before it need be looked up.

The database has all of it by then. Here is what saves reading it back: the entries of messages that
nobody has claimed yet, as long as nothing that is due came before them; and small content, until
the first attempt is over. Both are bounded, and what has no room is read.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from threading import Lock

from .seam import Entry

__all__ = ["Arrivals"]


class Arrivals:
    """So many `entries` that wait to be claimed, of few `recipients` each, and `octets` of content.

    Entries come from one thread and are taken in another.
    """

    def __init__(self, entries: int, recipients: int, octets: int) -> None:
        self._most, self._each = entries, recipients
        self._room = octets
        self._content: dict[str, bytes] = {}
        self._entries: list[tuple[float, str, Entry]] = []  # a heap: in the order of the spool
        self._ids: set[str] = set()
        self._lock = Lock()

    # Entries

    def add(self, entry: Entry) -> bool:
        """Take one in; False where there is no room."""
        with self._lock:
            if len(self._entries) >= self._most or len(entry.recipients) > self._each:
                return False
            heappush(self._entries, (entry.arrived, entry.id, entry))
            self._ids.add(entry.id)
            return True

    def __contains__(self, id: str) -> bool:
        return id in self._ids

    def take(self, limit: int, now: float) -> list[Entry]:
        """Give away those that are due by now, the longest due first."""
        taken: list[Entry] = []
        with self._lock:
            while len(taken) < limit and self._entries and self._entries[0][0] <= now:
                _, id, entry = heappop(self._entries)
                self._ids.remove(id)
                taken.append(entry)
        return taken

    def take_all(self) -> list[Entry]:
        """Give all of them away."""
        return self.take(len(self._entries), inf)

    def due(self) -> float:
        """Return when the first is due; infinity for none."""
        with self._lock:
            return self._entries[0][0] if self._entries else inf

    # Content

    def keep(self, id: str, content: bytes) -> None:
        """Keep the content of a message, if there is room for it."""
        if len(content) <= self._room:
            self._room -= len(content)
            self._content[id] = content

    def content(self, id: str) -> bytes | None:
        """Return the content of a message, if it is here."""
        return self._content.get(id)

    def drop(self, id: str) -> None:
        """Forget the content of a message; it may be forgotten already."""
        self._room += len(self._content.pop(id, b""))
