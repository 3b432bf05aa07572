"""The relay, broken on purpose: a simulation that does not see it sees nothing.

Each of these is a fault that somebody could make, and the invariant that has to notice it.
"""

from .base import Sabotage
from .keeping import KEEPING
from .promising import PROMISING

__all__ = ["SABOTAGES", "Sabotage"]

SABOTAGES = (*KEEPING, *PROMISING)
