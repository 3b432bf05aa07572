"""The two ends of an SMTP session: octets in, events out; values in, octets out.

Both pull: `receive_data` only stores, `next_event` returns one event or says why there is none,
`send` checks that this is legal now and returns what to write. Feed on NEED_DATA and not
before, and neither end ever holds more than its limits and what was fed last.
"""

from __future__ import annotations

from attrs import field, frozen

from .buffer import ReceiveBuffer
from .errors import LocalProtocolError
from .event import ConnectionClosed, TlsInfo
from .state import State

__all__ = ["DEFAULT_LIMITS", "Connection", "Limits"]


def _message(value: int | None) -> int | None:
    if value is not None and not 0 < value < 10**20:
        raise LocalProtocolError(f"not the size of a message (RFC 1870 §3): {value}")
    return value


@frozen
class Limits:
    """What one end accepts from its peer. Octets, unless said otherwise.

    RFC 5321 §4.5.3.1 gives the floors. A message of None has no limit; LocalProtocolError where it
    is no size that SIZE could announce, for which 0 means no limit (RFC 1870 §3).
    """

    message: int | None = field(converter=_message, default=26_214_400)
    recipients: int = 1000  # of one transaction; at least 100 (§4.5.3.1.8)
    bad_commands: int = 20  # in one session, before 421
    endless_line: int = 65_536  # a line that has not ended by then loses the framing
    reply: int = 65_536  # all lines of one reply
    backlog: int = 262_144  # unread octets on which `receive_data` will still build


DEFAULT_LIMITS = Limits()


def _are_octets(data: object) -> bool:
    # A None or "" in their place would pass for the end of file.
    return isinstance(data, (bytes, bytearray, memoryview))


class Connection:
    """What both ends share. Use `ServerConnection` or `ClientConnection`."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        #: What is known of the TLS layer, None in clear.
        self.tls: TlsInfo | None = None
        #: The client has logged in.
        self.authenticated = False
        self._state = State.CONNECTED
        self._buffer = ReceiveBuffer()
        self._eof = False

    @property
    def state(self) -> State:
        """Where the session is, by what has been answered."""
        return self._state

    @property
    def buffered(self) -> int:
        """Octets received and not yet pulled."""
        return len(self._buffer)

    def receive_data(self, data: bytes) -> None:
        """Store what was received; `b""` is the end of file.

        LocalProtocolError for None and the like, which is no end of file, for octets behind it, and
        when more than `limits.backlog` unread octets are there already: that is a caller who feeds
        without pulling.
        """
        if not data:
            if not _are_octets(data):
                raise LocalProtocolError(f"octets are received, not {type(data).__name__}")
            self._eof = True
        elif self._eof:
            raise LocalProtocolError("nothing is received behind the end of file")
        elif len(self._buffer) > self.limits.backlog:
            raise LocalProtocolError("fed without pulling: call next_event() until NEED_DATA")
        elif self._state is not State.CLOSED:
            self._buffer.append(data)

    def tls_started(self, info: TlsInfo | None = None) -> None:
        """Say that TLS is on: after STARTTLS was answered 220, or first of all (implicit TLS).

        Both ends forget what they learned in clear (RFC 3207 §4.2).
        """
        if self._state is State.TLS:
            self._state = State.GREETED
        elif self._state is not State.CONNECTED or self.tls is not None:
            raise LocalProtocolError("TLS starts after the 220 to STARTTLS, or before anything")
        self._discard_clear_text()
        self.tls = info or TlsInfo()
        self._forget()

    def _forget(self) -> None:
        """Forget what the peer said in clear."""
        raise NotImplementedError

    def _discard_clear_text(self) -> None:
        self._buffer.clear()

    def _close(self) -> ConnectionClosed:
        self._state = State.CLOSED
        self._buffer.clear()
        return ConnectionClosed()
