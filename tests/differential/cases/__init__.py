"""The cases, by theme, in the order of the page."""

from collections.abc import Mapping, Sequence

from tests.differential.case import Case

from .addresses import ADDRESSES
from .chunks import CHUNKS
from .content import CONTENT, END_OF_DATA
from .greeting import GREETING, ORDER
from .lines import LINES, STRANGERS
from .parameters import PARAMETERS
from .pipelining import PIPELINING
from .security import AUTH, TLS

__all__ = ["THEMES"]

THEMES: Mapping[str, Sequence[Case]] = {
    "End of data": END_OF_DATA,
    "Content": CONTENT,
    "Command lines": LINES,
    "What is no SMTP": STRANGERS,
    "EHLO and HELO": GREETING,
    "Order": ORDER,
    "Pipelining": PIPELINING,
    "Addresses": ADDRESSES,
    "Parameters": PARAMETERS,
    "Chunks": CHUNKS,
    "AUTH": AUTH,
    "STARTTLS": TLS,
}
