"""What both ends of a session share."""

from collections.abc import Callable

import pytest

from smtpproto import ClientConnection, Limits, LocalProtocolError, ServerConnection
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
