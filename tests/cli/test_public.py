"""`config check --public`: what the internet sees, told with what to do; no internet is needed."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream
from attrs import evolve, field, frozen

from smtpproto.cli import configure
from smtpproto.cli.config import ServeSettings, build, parse
from smtpproto.cli.node import ensure_certificate
from smtpproto.cli.public import Finding, Public
from smtpproto.cli.values import host_port
from smtpproto.relay.filters.blocklist import question
from smtpproto.resolve import Mx, NoRecords, NoSuchDomain, ResolveFailed
from tests.cli.conftest import Run
from tests.cli.servers import scripted

NAME, ADDRESS, REVERSED = "mail.our.example", "9.8.7.6", "6.7.8.9"
SETTINGS = ServeSettings(hostname=NAME, local_domains=("our.example", "localhost"))
SMART = evolve(SETTINGS, smart_host=host_port("smtp.provider.example:587"))
PROVIDER = "a smart host, some provider's server"


@frozen
class World:
    """A DNS of its own: what is not in it does not exist; `silent` names get no answer."""

    mxs: Mapping[str, Sequence[Mx]] = field(
        factory=lambda: {"our.example": [Mx(10, NAME)], "gmail.com": [Mx(5, "mx.big.example")]}
    )
    hosts: Mapping[str, Sequence[str]] = field(factory=lambda: {NAME: [ADDRESS]})
    pointers: Mapping[str, Sequence[str]] = field(factory=lambda: {ADDRESS: [f"{NAME}."]})
    lists: Mapping[str, Sequence[str]] = field(factory=dict)
    silent: frozenset[str] = frozenset()

    def _answer(self, known: Mapping[str, Sequence], name: str) -> Sequence:  # type: ignore[type-arg]
        if name in self.silent:
            raise ResolveFailed(name)
        if name not in known:
            raise NoSuchDomain(name)
        if not known[name]:
            raise NoRecords(name)
        return known[name]

    async def mx(self, domain: str) -> Sequence[Mx]:
        return self._answer(self.mxs, domain)

    async def addresses(self, host: str) -> Sequence[str]:
        return self._answer(self.hosts, host)

    async def ipv4(self, name: str) -> Sequence[str]:
        return self._answer(self.lists, name)

    async def names(self, address: str) -> Sequence[str]:
        return self._answer(self.pointers, address)


def to_port(port: int) -> Callable[[str, int], object]:
    """A way out on which every port 25 is this one."""

    async def connect(host: str, asked: int) -> ByteStream:
        assert (host, asked) == ("mx.big.example", 25)
        return await anyio.connect_tcp("127.0.0.1", port)

    return connect


async def refused(host: str, port: int) -> ByteStream:
    raise ConnectionRefusedError(111, "Connection refused")


async def dropped(host: str, port: int) -> ByteStream:
    await anyio.sleep_forever()
    raise AssertionError


def look(
    world: World, settings: ServeSettings = SMART, connect: object = refused, patience: float = 30
) -> list[Finding]:
    looks = Public(settings, world, connect, patience=patience)  # type: ignore[arg-type]
    return anyio.run(looks.look)


def about(findings: list[Finding], word: str) -> Finding:
    (found,) = [each for each in findings if word in each.said]
    return found


def test_a_node_that_is_as_it_should_be() -> None:
    with scripted(b"220 mx.big.example ESMTP\r\n") as port:
        findings = look(World(), SETTINGS, to_port(port))
    assert [each.kind for each in findings] == ["good"] * 6 + ["warn"]
    assert "no certificate yet" in findings[-1].said
    assert all(each.advice for each in findings if each.kind != "good")


@pytest.mark.parametrize("name", ["localhost", "machine"])
def test_a_name_that_is_none(name: str) -> None:
    found = look(World(), evolve(SMART, hostname=name))[0]
    assert (found.kind, found.said.split(",")[0]) == ("bad", f"hostname is {name}")


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ({}, "has no address in the DNS"),
        ({NAME: []}, "has no address in the DNS"),
        ({NAME: ["192.168.1.7", "::1"]}, "where the internet does not come"),
    ],
)
def test_a_name_that_leads_nowhere(hosts: dict[str, list[str]], words: str) -> None:
    found = look(World(hosts=hosts))[0]
    assert found.kind == "bad"
    assert words in found.said


@pytest.mark.parametrize(
    ("pointers", "words"),
    [
        ({}, "has no name (PTR)"),
        ({ADDRESS: ["6-7-8-9.dsl.provider.example"]}, "has the name 6-7-8-9.dsl.provider.example"),
    ],
)
def test_a_reverse_name_that_does_not_agree(pointers: dict[str, list[str]], words: str) -> None:
    """Who sends by a smart host can live with it; else that is the first advice."""
    world = World(pointers=pointers)
    assert about(look(world), words).kind == "warn"
    found = about(look(world, SETTINGS), words)
    assert found.kind == "bad"
    assert found.advice.startswith(f"the way round: {PROVIDER}")


@pytest.mark.parametrize(
    ("answer", "words", "kind"),
    [
        ("127.0.0.2", "is on the block list", "bad"),
        ("127.0.0.10", "is in a range of home lines", "bad"),
        ("127.255.255.254", "does not answer this resolver", "warn"),
        ("203.0.113.1", "does not answer this resolver", "warn"),
    ],
)
def test_block_lists(answer: str, words: str, kind: str) -> None:
    world = World(lists={"6.7.8.9.zen.spamhaus.org": [answer]})
    found = about(look(world, SETTINGS), words)
    assert found.kind == kind
    assert ADDRESS in found.said
    assert (PROVIDER in found.advice) == (kind == "bad")


LISTED = {"2.0.0.127.bl.example": ["127.0.0.2"], "test.dom.example": ["127.0.1.2"]}


def with_lists(text: str = "") -> ServeSettings:
    entries = '[[filters]]\nuse = "blocklist"\nzone = "bl.example"\n' + text
    return evolve(SMART, filters=build(parse(entries, "smtp.toml", Path())).filters)


def test_a_configured_block_list_that_is_alive() -> None:
    more = '[[filters]]\nuse = "blocklist"\nzone = "dom.example"\nof = "sender"\n'
    findings = look(World(lists=LISTED), with_lists(more))
    for zone in "bl.example", "dom.example":
        found = about(findings, f"the block list {zone} answers")
        assert found.kind == "good"


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({}, "bl.example does not have its test entry, 127.0.0.2: it is dead, or does not answer"),
        ({"2.0.0.127.bl.example": ["203.0.113.1"]}, "does not have its test entry"),
        ({"1.0.0.127.bl.example": ["127.0.0.2"]}, "does not have its test entry"),
        (
            {"2.0.0.127.bl.example": ["127.255.255.254"]},
            "bl.example does not answer this resolver (127.255.255.254)",
        ),
        (
            {**LISTED, "1.0.0.127.bl.example": ["127.0.0.2"]},
            "bl.example has 127.0.0.1, which none may have",
        ),
    ],
)
def test_a_configured_block_list_that_is_of_no_use(lists: dict[str, list[str]], words: str) -> None:
    found = about(look(World(lists=lists), with_lists()), "the block list")
    assert found.kind == "bad"
    assert words in found.said
    assert "take it out of filters" in found.advice


def test_a_list_of_domains_has_test_and_not_invalid() -> None:
    settings = evolve(
        SMART,
        filters=build(
            parse(
                '[[filters]]\nuse = "blocklist"\nzone = "dom.example"\nof = "sender"\n', "", Path()
            )
        ).filters,
    )
    assert "its test entry, test:" in about(look(World(), settings), "the block list").said
    everybody = World(lists={**LISTED, "invalid.dom.example": ["127.0.1.2"]})
    assert "has invalid, which none" in about(look(everybody, settings), "the block list").said


def test_a_list_of_ipv6_addresses_alone_has_its_own_test_entry() -> None:
    listed, never = (question(ip_address(f"::ffff:127.0.0.{n}"), "bl.example") for n in (2, 1))
    lists = {listed: ["127.0.0.2"]}
    assert about(look(World(lists=lists), with_lists()), "bl.example answers").kind == "good"
    lists[never] = ["127.0.0.2"]
    assert about(look(World(lists=lists), with_lists()), "which none may have").kind == "bad"


def test_a_block_list_that_is_silent_is_no_verdict() -> None:
    world = World(lists=LISTED, silent=frozenset({"2.0.0.127.bl.example"}))
    found = about(look(world, with_lists()), "bl.example")
    assert found.kind == "warn"
    assert "the DNS did not answer: bl.example about its test entry" in found.said


def test_a_block_list_is_asked_about_once() -> None:
    twice = '[[filters]]\nuse = "blocklist"\nzone = "bl.example"\ndoes = "tag"\n'
    about(look(World(lists=LISTED), with_lists(twice)), "the block list bl.example")


@pytest.mark.parametrize(
    ("connect", "words"), [(refused, "nothing listens there"), (dropped, "no answer within")]
)
def test_port_25_that_is_out_of_reach(connect: object, words: str) -> None:
    found = about(look(World(), SETTINGS, connect, patience=0.2), "port 25 of others")
    assert found.kind == "bad"
    assert words in found.said
    assert found.advice.startswith(f"the way round: {PROVIDER}")


def test_something_else_at_port_25() -> None:
    """Some providers answer there themselves."""
    with scripted(b"554 not from here\r\n") as port:
        found = about(look(World(), SETTINGS, to_port(port)), "port 25 of others")
    assert found.kind == "bad"


def test_with_a_smart_host_port_25_is_not_tried() -> None:
    assert about(look(World()), "goes by the smart host").kind == "good"


@pytest.mark.parametrize(
    ("records", "words"),
    [([], "has no MX record"), ([Mx(10, "mx.other.example")], "leads to mx.other.example, not to")],
)
def test_an_mx_that_leads_elsewhere(records: list[Mx], words: str) -> None:
    found = about(look(World(mxs={"our.example": records})), words)
    assert found.kind == "warn"
    assert "our.example. MX 10 mail.our.example." in found.advice


def test_a_dns_that_does_not_answer_is_no_verdict() -> None:
    world = World(silent=frozenset({NAME, "our.example"}))
    assert [each.kind for each in look(world)] == ["warn", "good", "warn", "warn"]


@pytest.mark.parametrize(
    ("names", "later", "words", "kind"),
    [
        (["other.example"], 0, "is not for mail.our.example", "warn"),
        ([NAME], 0, "is signed by itself", "warn"),
        (["*.our.example"], 0, "is signed by itself", "warn"),
        ([NAME], 3700, "has expired", "bad"),
    ],
)
def test_certificates(tmp_path: Path, names: list[str], later: int, words: str, kind: str) -> None:
    ensure_certificate(tmp_path, names)
    looks = Public(
        evolve(SMART, data=tmp_path),
        World(),
        now=lambda: datetime.now(UTC) + timedelta(days=later),
    )
    found = anyio.run(looks.look)[-1]
    assert found.kind == kind
    assert words in found.said


def test_as_its_user_has_it(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(pointers={})
    monkeypatch.setattr(configure, "DNS", lambda: world)
    Path("smtp.toml").write_text(
        f'hostname = "{NAME}"\nsmart-host = "smtp.provider.example:587"\n'
        'local-domains = ["our.example"]\n'
    )
    shown = cli("config", "check", "--public", "smtp.toml")
    assert shown.exit_code == 0
    assert f"✓ {NAME} leads to {ADDRESS}\n" in shown.stdout
    assert f"• {ADDRESS} has no name (PTR)" in shown.stdout
    found = json.loads(cli("config", "check", "--public", "smtp.toml", "--json").stdout)
    assert [each["kind"] for each in found["public"]] == [
        *("good", "warn", "good", "good", "good", "good", "warn")
    ]
    monkeypatch.setattr(configure, "DNS", lambda: World(hosts={}))
    assert cli("config", "check", "--public", "smtp.toml").exit_code == 1
