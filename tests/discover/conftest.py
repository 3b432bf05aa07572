"""An authority, made once, and a world of its own for each test."""

from pathlib import Path

import pytest

from .world import Authority, World


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(Path(tmp_path_factory.mktemp("authority")))


@pytest.fixture
def world(authority: Authority) -> World:
    return World(authority)
