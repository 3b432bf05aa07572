"""What both ends of a session share."""

from collections.abc import Callable
from typing import Any

import pytest

from smtpproto import (
    ClientConnection,
    ConnectionClosed,
    Limits,
    LocalProtocolError,
    ServerConnection,
)
from smtpproto.core.connection import Connection

TEN = Limits(backlog=10)
ENDS: list[Callable[[], Connection]] = [
    lambda: ServerConnection("mx.example", limits=TEN),
    lambda: ClientConnection(limits=TEN),
]


@pytest.mark.parametrize("make", ENDS, ids=["server", "client"])
def test_it_is_fed_without_pulling_up_to_the_backlog_and_no_further(
    make: Callable[[], Connection],
) -> None:
    end = make()
    end.receive_data(b"x" * 10)
    end.receive_data(b"y")
    assert end.buffered == 11
    with pytest.raises(LocalProtocolError, match="without pulling"):
        end.receive_data(b"z")
    assert end.buffered == 11
    end.receive_data(b"")  # the end of file costs nothing


@pytest.mark.parametrize("make", ENDS, ids=["server", "client"])
def test_nothing_is_received_behind_the_end_of_file(make: Callable[[], Connection]) -> None:
    end = make()
    end.receive_data(b"x")
    end.receive_data(b"")
    end.receive_data(b"")  # once more says the same
    for late in (b"NOOP\r\n", b"250 ok\r\n"):
        with pytest.raises(LocalProtocolError, match="behind the end of file"):
            end.receive_data(late)
    assert end.buffered == 1


@pytest.mark.parametrize("make", ENDS, ids=["server", "client"])
@pytest.mark.parametrize("data", [None, "", 0, []])
def test_what_is_no_octets_is_no_end_of_file(make: Callable[[], Connection], data: Any) -> None:
    end = make()
    with pytest.raises(LocalProtocolError, match="octets are received, not"):
        end.receive_data(data)
    end.receive_data(b"x")
    assert end.buffered == 1


@pytest.mark.parametrize("data", [bytearray(b"250 x\r\n"), memoryview(b"250 x\r\n")])
def test_any_octets_will_do(data: Any) -> None:
    client = ClientConnection()
    client.receive_data(data)
    end: Any = memoryview(b"")
    client.receive_data(end)
    assert client.next_event() != ConnectionClosed()
    assert client.next_event() == ConnectionClosed()
