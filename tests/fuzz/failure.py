"""A failure: where it is, and the least input that still fails there."""

import traceback
from collections.abc import Callable, Sequence

from .draw import Draw, drawn_from

__all__ = ["failure", "minimised", "place"]

#: Runs that making one input smaller may take.
PATIENCE = 20_000


def place(error: BaseException) -> str:
    """Return the kind of an error and where it was raised: what makes two of them one finding."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    here = f"{type(error).__name__} {frame.filename.rpartition('/')[2]}:{frame.lineno}"
    return f"{here} ({place(error.__context__)})" if error.__context__ else here


def failure(target: Callable[[bytes], None], data: bytes) -> str | None:
    """Return the place where a target fails with an input; None if it does not."""
    try:
        target(data)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is a finding)
        return place(error)
    return None


def minimised(target: Callable[[bytes], None], data: bytes) -> bytes:
    """Return an input as short and plain as we find that fails at the same place as `data`."""
    wanted = failure(target, data)
    assert wanted is not None, "nothing fails here"
    left = PATIENCE

    def fails(wire: Sequence[int], choices: Sequence[int]) -> bool:
        nonlocal left
        left -= 1
        return left > 0 and failure(target, drawn_from(bytes(wire), choices)) == wanted

    draw = Draw(data)
    wire, choices = list(draw.wire), list(draw.choices)
    while True:
        before = (wire, choices)
        wire = _less(wire, lambda some: fails(some, choices), plain=ord("x"))  # noqa: B023
        choices = _less(choices, lambda some: fails(wire, some), plain=0)  # noqa: B023
        if (wire, choices) == before:
            return drawn_from(bytes(wire), choices)


def _less(octets: list[int], fails: Callable[[list[int]], bool], *, plain: int) -> list[int]:
    """Leave out all that need not be there, and make plain what need not be what it is."""
    size = len(octets)
    while size:
        at = 0
        while at < len(octets):
            shorter = octets[:at] + octets[at + size :]
            if fails(shorter):
                octets = shorter
            else:
                at += size
        size //= 2
    for at, octet in enumerate(octets):
        plainer = [*octets[:at], plain, *octets[at + 1 :]]
        if octet != plain and fails(plainer):
            octets = plainer
    return octets
