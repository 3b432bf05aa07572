"""Certificates, made once; and no test here may hang."""

from pathlib import Path

import pytest

from .world import Box, Certificates, certificates


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(Path(tmp_path_factory.mktemp("tls")))


@pytest.fixture
def box() -> Box:
    return Box()
