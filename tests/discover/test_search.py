"""The whole search: who is asked in which order, what is believed, and what bounds it."""

import ssl
from typing import Any

import anyio
import pytest

from smtpproto.client import Tls
from smtpproto.discover import AddressError, Bounds, Candidate, FetchError, Source, Verdict
from smtpproto.resolve import Mx, NoRecords, NoSuchDomain, ResolveFailed, Srv
from tests.adapters.clock import anyio_backend  # noqa: F401 - a fixture

from .world import ADDRESS, OWN_FILE, SUBMISSION, SUBMISSIONS, WELL_KNOWN, World, config, server

pytestmark = pytest.mark.anyio

MAIL = "mail.example.org"
HOSTER = "smtp.hoster.example"
PROVIDER_FILE = (
    "https://autoconfig.hoster.example/mail/config-v1.1.xml?emailaddress=ann@example.org"
)


def where(candidate: Candidate | None) -> tuple[str, int, Tls] | None:
    return None if candidate is None else (candidate.host, candidate.port, candidate.tls)


# SRV


@pytest.mark.rfc("8314 §5.1")
async def test_an_srv_record_in_the_domain(world: World) -> None:
    world.srvs[SUBMISSIONS] = [Srv(0, 1, 465, MAIL)]
    async with world.serving((MAIL, 465)):
        found = await world.discover()
    best = found.best
    assert best is not None
    assert where(best) == (MAIL, 465, Tls.IMPLICIT)
    assert best.sources == (Source.SRV,)
    assert best.verdict is Verdict.USABLE
    assert "PLAIN" in best.mechanisms
    assert not best.confirm
    assert found.candidates == (best,)
    assert [finding.found for finding in found.findings] == [
        f"{MAIL}:465",
        "no such record",
        "no such file: 404",
        "no such file: 404",
    ]
    assert not any(finding.failed for finding in found.findings)


@pytest.mark.rfc("6186 §4")
async def test_the_whole_address_is_the_first_user_name_to_try(world: World) -> None:
    world.srvs[SUBMISSION] = [Srv(0, 1, 587, MAIL)]
    async with world.serving((MAIL, 587)):
        found = await world.discover()
    assert found.best is not None
    assert found.best.usernames == (ADDRESS, "ann")


@pytest.mark.rfc("8314 §5.1")
async def test_tls_from_the_first_octet_is_preferred(world: World) -> None:
    world.srvs |= {SUBMISSION: [Srv(0, 1, 587, MAIL)], SUBMISSIONS: [Srv(0, 1, 465, MAIL)]}
    async with world.serving((MAIL, 587), (MAIL, 465)):
        found = await world.discover()
    assert list(map(where, found.candidates)) == [
        (MAIL, 465, Tls.IMPLICIT),
        (MAIL, 587, Tls.REQUIRED),
    ]
    assert all(candidate.usable for candidate in found.candidates)
    assert found.best is found.candidates[0]


async def test_the_next_in_order_when_the_first_does_not_work(world: World) -> None:
    world.srvs[SUBMISSIONS] = [Srv(20, 1, 465, "b.example.org"), Srv(10, 1, 465, "a.example.org")]
    async with world.serving(("b.example.org", 465)):
        found = await world.discover()
    assert [candidate.verdict for candidate in found.candidates] == [
        Verdict.UNREACHABLE,
        Verdict.USABLE,
    ]
    assert found.best is found.candidates[1]


@pytest.mark.rfc("6186 §3.4")
async def test_what_is_not_available_is_not_guessed_either(world: World) -> None:
    world.srvs |= {SUBMISSION: [Srv(0, 0, 0, ".")], SUBMISSIONS: [Srv(0, 1, 465, "x.example.org")]}
    async with world.serving((MAIL, 587), (MAIL, 465)):
        found = await world.discover()
    assert where(found.best) == (MAIL, 465, Tls.IMPLICIT)
    assert found.findings[1].found == "the domain has no such service"
    assert all(port == 465 for _, port in world.connected)


async def test_a_domain_without_submission_at_all(world: World) -> None:
    world.srvs |= {SUBMISSION: [Srv(0, 0, 0, ".")], SUBMISSIONS: [Srv(0, 0, 0, ".")]}
    found = await world.discover()
    assert found.best is None
    assert found.candidates == ()
    assert not world.connected


@pytest.mark.parametrize("target", ["a b.example", "192.0.2.1", "\\032.example", "-.example", ""])
async def test_targets_that_are_no_hosts(world: World, target: str) -> None:
    world.srvs[SUBMISSIONS] = [Srv(0, 1, 465, target)]
    found = await world.discover()
    assert all(candidate.sources == (Source.GUESS,) for candidate in found.candidates)


# Whether to ask the user (RFC 6186 §6, RFC 8314 §5.1)


@pytest.mark.rfc("6186 §6")
@pytest.mark.rfc("8314 §5.1")
async def test_a_target_in_another_domain_has_to_be_confirmed(world: World) -> None:
    world.srvs[SUBMISSIONS] = [Srv(0, 1, 465, HOSTER)]
    async with world.serving((HOSTER, 465)):
        found = await world.discover()
    assert found.best is not None
    assert found.best.usable
    assert found.best.confirm
    assert "hoster.example" in found.best.confirm_reason
    assert "example.org" in found.best.confirm_reason


@pytest.mark.rfc("7817 §3")
async def test_unless_its_certificate_is_for_the_domain_too(world: World) -> None:
    world.srvs[SUBMISSIONS] = [Srv(0, 1, 465, HOSTER)]
    async with world.serving((HOSTER, 465), names=[HOSTER, "example.org"]):
        found = await world.discover()
    assert found.best is not None
    assert not found.best.confirm
    assert found.best.confirm_reason == ""
    assert found.best.server_name == HOSTER


@pytest.mark.rfc("7817 §4.1")
async def test_or_has_the_srv_id_of_its_service(world: World) -> None:
    world.srvs[SUBMISSIONS] = [Srv(0, 1, 465, HOSTER)]
    context = world.authority.context(HOSTER, srv=["_submissions.example.org"])
    async with world.serving((HOSTER, 465), tls=context):
        found = await world.discover()
    assert found.best is not None
    assert not found.best.confirm


async def test_or_the_domains_own_file_names_it_too(world: World) -> None:
    world.srvs[SUBMISSIONS] = [Srv(0, 1, 465, HOSTER)]
    world.files[OWN_FILE] = config(server(HOSTER, 465, username="id-%EMAILLOCALPART%"))
    async with world.serving((HOSTER, 465)):
        found = await world.discover()
    assert found.best is not None
    assert found.best.sources == (Source.SRV, Source.AUTOCONFIG)
    assert found.best.usernames == ("id-ann",)
    assert not found.best.confirm


async def test_what_need_not_be_confirmed_is_better(world: World) -> None:
    world.srvs[SUBMISSIONS] = [Srv(0, 1, 465, "smtp.evil.example")]
    world.files[OWN_FILE] = config(server(HOSTER, 587, "STARTTLS"))
    async with world.serving(("smtp.evil.example", 465), (HOSTER, 587)):
        found = await world.discover()
    assert [candidate.confirm for candidate in found.candidates] == [True, False]
    assert where(found.best) == (HOSTER, 587, Tls.REQUIRED)


# Configuration files


@pytest.mark.parametrize("url", [OWN_FILE, WELL_KNOWN])
async def test_the_domains_own_file(world: World, url: str) -> None:
    world.files[url] = config(server(HOSTER, 587, "STARTTLS", "%EMAILLOCALPART%"))
    async with world.serving((HOSTER, 587)):
        found = await world.discover()
    best = found.best
    assert best is not None
    assert where(best) == (HOSTER, 587, Tls.REQUIRED)
    assert best.sources == (Source.AUTOCONFIG,)
    assert best.usernames == ("ann",)
    assert best.authentication == ("password-cleartext",)
    assert not best.confirm


@pytest.mark.rfc("8314 §5.1")
async def test_a_server_without_tls_is_not_even_tried(world: World) -> None:
    world.files[OWN_FILE] = config(server(MAIL, 25, "plain"))
    async with world.serving((MAIL, 587)):
        world.ports[MAIL, 25] = world.ports[MAIL, 587]
        found = await world.discover()
    assert found.candidates[0].verdict is Verdict.IN_CLEAR
    assert (MAIL, 25) not in world.connected
    assert where(found.best) == (MAIL, 587, Tls.REQUIRED)


async def test_a_file_that_is_none(world: World) -> None:
    world.files[OWN_FILE] = b"<!DOCTYPE html><html></html>"
    world.files[WELL_KNOWN] = config()
    found = await world.discover()
    assert found.findings[2].found == "not usable: it declares a document type"
    assert found.findings[3].found == "a file that names no SMTP server"


# The provider behind the MX records


async def test_the_providers_file(world: World) -> None:
    world.mxs["example.org"] = [Mx(20, "backup.example"), Mx(10, "mx.hoster.example")]
    world.files[PROVIDER_FILE] = config(server(HOSTER, 465))
    async with world.serving((HOSTER, 465)):
        found = await world.discover()
    best = found.best
    assert best is not None
    assert best.sources == (Source.PROVIDER,)
    assert best.confirm, "the DNS alone says that this is the provider"
    assert [finding.found for finding in found.findings[4:]] == [
        "mx.hoster.example",
        f"{HOSTER}:465",
    ]


async def test_it_is_not_asked_when_the_domain_says_all(world: World) -> None:
    world.srvs[SUBMISSIONS] = [Srv(0, 1, 465, MAIL)]
    async with world.serving((MAIL, 465)):
        await world.discover()
    assert "example.org MX" not in world.asked
    assert world.connected == [(MAIL, 465)]


async def test_unless_everything_is_wanted(world: World) -> None:
    world.srvs[SUBMISSIONS] = [Srv(0, 1, 465, MAIL)]
    world.mxs["example.org"] = [Mx(10, "mx.hoster.example")]
    async with world.serving((MAIL, 465), (HOSTER, 587)):
        found = await world.discover(everything=True)
    usable = [candidate for candidate in found.candidates if candidate.usable]
    assert list(map(where, usable)) == [(MAIL, 465, Tls.IMPLICIT), (HOSTER, 587, Tls.REQUIRED)]
    assert usable[0].sources == (Source.SRV, Source.GUESS)
    assert world.connected.count((MAIL, 465)) == 1
    assert found.best is usable[0]


# Usual names


@pytest.mark.rfc("8314 §3.3 both-ways-to-tls")
@pytest.mark.parametrize("port", [465, 587])
@pytest.mark.parametrize("host", ["smtp.example.org", "mail.example.org", "example.org"])
async def test_usual_names(world: World, host: str, port: int) -> None:
    async with world.serving((host, port)):
        found = await world.discover()
    assert found.best is not None
    assert (found.best.host, found.best.port) == (host, port)
    assert found.best.sources == (Source.GUESS,)
    assert not found.best.confirm
    assert len(found.candidates) == 6
    assert {c.verdict for c in found.candidates} == {Verdict.USABLE, Verdict.UNREACHABLE}


async def test_usual_names_at_the_provider_have_to_be_confirmed(world: World) -> None:
    world.mxs["example.org"] = [Mx(10, "mx.hoster.example")]
    async with world.serving((HOSTER, 465)):
        found = await world.discover()
    assert where(found.best) == (HOSTER, 465, Tls.IMPLICIT)
    assert found.best is not None
    assert found.best.sources == (Source.PROVIDER_GUESS,)
    assert found.best.confirm


async def test_ones_own_name_is_better_than_the_providers(world: World) -> None:
    world.mxs["example.org"] = [Mx(10, "mx.hoster.example")]
    async with world.serving((HOSTER, 465), ("example.org", 587)):
        found = await world.discover()
    assert where(found.best) == ("example.org", 587, Tls.REQUIRED)


async def test_a_name_in_the_certificate_is_better_than_one_that_is_not(world: World) -> None:
    async with (
        world.serving(("smtp.example.org", 465), names=["example.org"]),
        world.serving((MAIL, 587)),
    ):
        found = await world.discover()
    assert [c.server_name for c in found.candidates if c.usable] == ["example.org", MAIL]
    assert where(found.best) == (MAIL, 587, Tls.REQUIRED)


async def test_a_domain_that_takes_no_mail_may_send_some(world: World) -> None:
    world.mxs["example.org"] = [Mx(0, ".")]
    async with world.serving((MAIL, 465)):
        found = await world.discover()
    assert where(found.best) == (MAIL, 465, Tls.IMPLICIT)
    assert found.findings[4].found == "the domain takes no mail"


async def test_below_a_domain_that_does_not_exist_nothing_is_guessed(world: World) -> None:
    missing = NoSuchDomain("example.org")
    world.srvs |= {SUBMISSION: missing, SUBMISSIONS: missing}
    world.mxs["example.org"] = missing
    world.files |= {OWN_FILE: FetchError("no such host"), WELL_KNOWN: FetchError("no such host")}
    found = await world.discover()
    assert found.no_such_domain
    assert not found.unanswered
    assert found.candidates == ()
    assert not world.connected


# Without a network


async def test_no_name_server_answers(world: World) -> None:
    failed = ResolveFailed("no answer")
    world.srvs |= {SUBMISSION: failed, SUBMISSIONS: failed}
    world.mxs["example.org"] = failed
    found = await world.discover()
    assert found.unanswered
    assert not found.no_such_domain
    assert found.best is None
    assert {finding.found for finding in found.findings if finding.failed} == {
        "no name server answers"
    }


# Bounds


@pytest.fixture
def mute(world: World) -> World:
    world.srvs |= {SUBMISSION: None, SUBMISSIONS: None}
    world.mxs["example.org"] = None
    world.files |= {OWN_FILE: None, WELL_KNOWN: None}
    return world


async def test_each_question_has_its_time(mute: World) -> None:
    async with mute.serving((MAIL, 465)):
        found = await mute.discover(bounds=Bounds(each=1, seconds=50))
    assert where(found.best) == (MAIL, 465, Tls.IMPLICIT)
    assert [finding.found for finding in found.findings] == ["no answer within 1 s"] * 5
    assert all(finding.failed for finding in found.findings)


async def test_all_of_it_has_its_time(mute: World) -> None:
    found = await mute.discover(bounds=Bounds(each=30, seconds=0.1))
    assert found.best is None
    assert {finding.found for finding in found.findings} == {"no answer before the time was up"}
    assert len(found.findings) == 4
    assert found.unanswered


async def test_what_was_not_tried_in_time_is_said(world: World) -> None:
    world.srvs[SUBMISSIONS] = [Srv(0, 1, 465, MAIL)]

    async def connect(host: str, port: int) -> Any:
        await anyio.sleep_forever()

    found = await world.discover(connector=connect, bounds=Bounds(each=30, seconds=0.2))
    assert [candidate.verdict for candidate in found.candidates] == [Verdict.NOT_TRIED]
    assert found.candidates[0].reason == "the time was up"


async def test_only_so_many_servers_are_tried_and_only_so_many_at_once(world: World) -> None:
    world.srvs[SUBMISSIONS] = [Srv(n, 1, 465, f"h{n}.example.org") for n in range(1000)]
    found = await world.discover(bounds=Bounds(candidates=20, concurrency=3))
    assert [c.host for c in found.candidates] == [f"h{n}.example.org" for n in range(20)]
    assert len(world.connected) == 20
    assert world.most_waiting == 3
    assert len(found.findings[0].found) < 1000


async def test_it_can_be_cancelled(mute: World) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(mute.discover)
        while len(mute.asked) < 4:
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert mute.waiting == 0


# What it asks for


async def test_the_names_of_an_international_domain(world: World) -> None:
    await world.discover("jö@bücher.example")
    assert sorted(world.asked) == [
        "_submission._tcp.xn--bcher-kva.example",
        "_submissions._tcp.xn--bcher-kva.example",
        "https://autoconfig.xn--bcher-kva.example/mail/config-v1.1.xml"
        "?emailaddress=j%C3%B6@b%C3%BCcher.example",
        "https://xn--bcher-kva.example/.well-known/autoconfig/mail/config-v1.1.xml",
        "xn--bcher-kva.example MX",
    ]
    assert ("smtp.xn--bcher-kva.example", 465) in world.connected


async def test_names_that_confuse_tls(world: World) -> None:
    host = "xn--zzzzzz.example"
    world.srvs[SUBMISSIONS] = [Srv(0, 1, 465, host), Srv(1, 1, 465, "a" * 63 + ".example")]
    async with world.serving((MAIL, 587)):
        for target in world.srvs[SUBMISSIONS]:
            world.ports[target.target, 465] = world.ports[MAIL, 587]
        found = await world.discover()
    assert [c.verdict for c in found.candidates[:2]] == [Verdict.NO_TLS, Verdict.NO_TLS]


async def test_an_address_without_a_domain_asks_nobody(world: World) -> None:
    with pytest.raises(AddressError):
        await world.discover("ann@[192.0.2.1]")
    assert not world.asked


async def test_a_context_that_does_not_verify_is_refused(world: World) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    with pytest.raises(ValueError, match="does not verify"):
        await world.discover(ssl_context=context)
    assert not world.asked


async def test_what_is_no_record_is_told_from_what_is_no_answer(world: World) -> None:
    world.srvs |= {SUBMISSION: NoRecords("x"), SUBMISSIONS: ResolveFailed("x")}
    world.files[OWN_FILE] = FetchError("no answer: reset", failed=True)
    found = await world.discover()
    assert [finding.failed for finding in found.findings] == [True, False, True, False, False]
