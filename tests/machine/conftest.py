"""Every state of two machines: the same lines, again and again."""

import pytest


@pytest.fixture(autouse=True)
def _untraced(untraced: None) -> None:
    pass
