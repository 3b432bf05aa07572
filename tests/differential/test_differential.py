"""Our server does what the clauses permit, and the page says what it and others do."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.adapters.world import Certificates, certificates

from .case import Case
from .page import AIOSMTPD, OURS, PAGE, POSTFIX, POSTFIX_STRICT, render
from .record import CASES, Observation, load, observe
from .servers import STRICT, Running, our_server, with_aiosmtpd, with_postfix

RECORD = load()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls(directory: Path) -> Certificates:
    return certificates(directory)


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def ours(request: pytest.FixtureRequest, tls: Certificates) -> Iterator[Observation]:
    with our_server(tls, request.param) as server:
        yield observe(server, tls.trusting)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_our_server_does_what_the_clause_permits(case: Case, ours: Observation) -> None:
    answer = ours.answers.get(case.name)
    if answer is None:
        assert case.needs not in ours.offers
        return
    permitted = case.permits(answer.words, answer.contents)
    assert permitted is not bool(case.by_design), f"{case.clause}: {case.demand}, not {answer}"


def test_the_record_says_what_our_server_does(ours: Observation) -> None:
    assert ours.answers == RECORD[OURS].answers
    assert ours.offers == RECORD[OURS].offers


def test_the_page_says_what_the_record_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(RECORD)


def same_where_it_is_the_same(
    name: str, server: AbstractContextManager[Running], tls: Certificates
) -> None:
    """Another version may answer otherwise: then it is enough that it answers at all."""
    with server as running:
        seen = observe(running, tls.trusting)
    if seen.version == RECORD[name].version:
        assert seen == RECORD[name]


@pytest.mark.peer("aiosmtpd")
def test_aiosmtpd(tls: Certificates) -> None:
    same_where_it_is_the_same(AIOSMTPD, with_aiosmtpd(tls), tls)


@pytest.mark.peer("postfix")
@pytest.mark.peer("dovecot")
@pytest.mark.parametrize("name", [POSTFIX, POSTFIX_STRICT])
def test_postfix(name: str, tls: Certificates, directory: Path) -> None:
    settings = STRICT if name == POSTFIX_STRICT else {}
    same_where_it_is_the_same(name, with_postfix(directory / "localhost.pem", settings), tls)


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    ("demand", "words", "permitted"),
    [
        ("250", "250 2.0.0", True),
        ("250", "250, 250", False),
        ("250", "250, closed", False),
        ("250/5yz", "554 5.6.0", True),
        ("250/5yz", "450", False),
        ("250, 503 | 501", "250, 503", True),
        ("250, 503 | 501", "501", True),
        ("250, 503 | 501", "250, 501", False),
        ("250×3", "250, 250, 250", True),
        ("250×3", "250, 250", False),
        ("…, 421, closed", "500, 500, 421, closed", True),
        ("…, 421, closed", "500, 502, closed", False),
        ("220, TLS, 250", "220, no TLS, closed", False),
    ],
)
def test_a_demand_permits_what_it_says(demand: str, words: str, permitted: bool) -> None:
    case = Case("name", b"", demand, "§1", "why")
    assert case.permits(tuple(words.split(", ")), ()) is permitted


def test_a_message_that_is_not_among_those_permitted() -> None:
    case = Case("name", b"", "250", "§1", "why", contents=(b"sent", b"mended"))
    assert case.permits(("250",), (b"mended",))
    assert not case.permits(("250",), (b"sent", b"smuggled"))
