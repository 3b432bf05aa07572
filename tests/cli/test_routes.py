"""`[[routes]]` in the file of `serve`: what an entry may say, and what is said of a wrong one."""

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.cli.config import ConfigError, build, parse
from smtpproto.cli.node import ensure_certificate
from smtpproto.cli.options import BadInput
from smtpproto.cli.routes import ROUTE, RouteSettings, read_routes, rules_of, schedule_of
from smtpproto.client import Tls
from smtpproto.core.reply import Reply
from smtpproto.relay import (
    Access,
    ByMx,
    Discard,
    Here,
    Host,
    NextHop,
    OnHold,
    Refuse,
    Rule,
    Schedule,
)
from smtpproto.relay.routing.table import RouteTable

FOLDER = Path("/etc/mail")
SMART = 'via = "smtp:smart.example:587"\nlogin = "ann"\npassword-file = "pw"'


def routes(*entries: str) -> tuple[RouteSettings, ...]:
    text = "".join(f"[[routes]]\n{entry}\n" for entry in entries)
    return build(parse(text, "smtp.toml", FOLDER)).routes


def wrong(*entries: str) -> str:
    with pytest.raises(ConfigError) as caught:
        routes(*entries)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("via", "meant"),
    [
        ("smtp:mail.example.org:25", Host("mail.example.org")),
        ("smtp:[2001:db8::1]:587", Host("2001:db8::1", port=587)),
        ("lmtp:store.example.org:24", Host("store.example.org", port=24, lmtp=True)),
        ("lmtp:unix:/run/lmtp", Host("localhost", path="/run/lmtp", lmtp=True)),
        ("lmtp:unix:lmtp", Host("localhost", path="/etc/mail/lmtp", lmtp=True)),
        ("mx", ByMx()),
        ("here", Here()),
        ("hold", OnHold()),
        ("hold: they move house", OnHold("they move house")),
        ("discard", Discard()),
        ("discard:test mail", Discard("test mail")),
        ("refuse:550 5.7.1 Not them", Refuse(Reply(550, "5.7.1", "Not them"))),
        ("refuse:450 Later", Refuse(Reply(450, None, "Later"))),
        ("refuse:550", Refuse(Reply(550, None, "Refused"))),
    ],
)
def test_what_is_done(via: str, meant: object) -> None:
    (route,) = routes(f'via = "{via}"')
    assert route.via == (NextHop.fixed(meant) if isinstance(meant, Host) else meant)
    assert (route.recipients, route.senders, route.times) == ((), (), {})


def test_several_hosts_are_tried_in_their_order_and_equals_in_any() -> None:
    ordered, equals, stores = routes(
        'via = ["smtp:a.example:25", "smtp:b.example:465"]',
        'via = [["smtp:a.example:25", "smtp:b.example:25"], "smtp:c.example:26"]',
        'via = ["lmtp:unix:/run/lmtp", "lmtp:store.example:24"]',
    )
    a, b, c = Host("a.example"), Host("b.example"), Host("c.example", port=26)
    assert ordered.via == NextHop.fixed(a, Host("b.example", port=465))
    assert equals.via == NextHop.fixed([a, b], c)
    assert str(ordered) == "smtp:a.example:25; else smtp:b.example:465, TLS implicit"
    assert str(equals) == "smtp:a.example:25 or smtp:b.example:25; else smtp:c.example:26"
    assert str(stores) == "lmtp:unix:/run/lmtp; else lmtp:store.example:24"


def test_whom_it_is_for_is_one_or_a_list() -> None:
    one, many = routes(
        'via = "mx"\nrecipients = "our.dom"\nsenders = "<>"',
        'via = "mx"\nrecipients = ["ann@our.dom", ".our.dom"]\nsenders = ["a.dom", "b@c.dom"]',
    )
    assert (one.recipients, one.senders) == (("our.dom",), ("<>",))
    assert (many.recipients, many.senders) == (("ann@our.dom", ".our.dom"), ("a.dom", "b@c.dom"))
    assert (one.whose, many.whose) == (
        "our.dom from <>",
        "ann@our.dom, .our.dom from a.dom, b@c.dom",
    )


@pytest.mark.parametrize(
    ("entry", "tls"),
    [
        ('via = "smtp:a.example:25"', Tls.OPPORTUNISTIC),
        ('via = "smtp:a.example:465"', Tls.IMPLICIT),
        (SMART, Tls.REQUIRED),
        (SMART.replace("587", "465"), Tls.IMPLICIT),
        (SMART.replace("smart.example", "127.0.0.1"), Tls.OPPORTUNISTIC),
        (SMART.replace("smart.example", "127.0.0.1") + '\ntls = "none"', Tls.NONE),
        ('via = "lmtp:unix:/run/lmtp"', Tls.NONE),
        ('via = "lmtp:store.example:24"\nca-file = "ca.pem"', Tls.REQUIRED),
        ('via = "lmtp:store.example:24"\ntls = "none"', Tls.NONE),
    ],
)
def test_how_a_host_is_talked_to(entry: str, tls: Tls) -> None:
    (route,) = routes(entry)
    assert isinstance(route.via, NextHop)
    assert [route.tls_of(host) for host in route.via.hosts] == [tls]


def test_a_route_has_times_of_its_own() -> None:
    mine, slow, never = (
        schedule_of(route.times)
        for route in routes(
            'via = "mx"\nfirst-retry = 30\nlongest-retry = "10 min"\n'
            'lifetime = "2h"\nnotice = "1 h"',
            'via = "mx"\nfirst-retry = "6 h"',
            'via = "mx"\nnotice = "never"\nlifetime = "7 d"',
        )
    )
    assert mine == Schedule(first=30, longest=600, lifetime=7200, notice=3600)
    assert slow == Schedule(first=6 * 3600, longest=6 * 3600)
    assert never == Schedule(lifetime=7 * 86400, notice=float("inf"))


def test_what_a_route_does_not_say_is_as_for_all_mail() -> None:
    usual = Schedule(first=60, longest=3600, lifetime=86400, notice=7200)
    one, other = routes('via = "mx"\nlifetime = "2 h"', 'via = "mx"\nlongest-retry = 30')
    assert schedule_of(one.times, usual) == evolve(usual, lifetime=7200)
    assert schedule_of(other.times, usual) == evolve(usual, first=30, longest=30)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ('recipients = "our.dom"', "entry 2: via is missing: there are "),
        ("via = []", "via: no host is in this list"),
        ("via = [[]]", "via: no host is in this list"),
        ('via = [["smtp:a.example:25", [1]]]', "via: takes a text: "),
        ('via = ["smtp:a.example:25", "mx"]', 'via: "mx" is no host, by "smtp:" or "lmtp:"'),
        ('via = ["smtp:a.example:25", "smtp:a.example:25"]', "via: a host is named twice"),
        ('via = ["smtp:a.example:25", "lmtp:a.example:24"]', "some hosts speak SMTP, and others"),
        ("via = 1", 'entry 2: via: takes a text: there are "smtp:HOST:PORT"'),
        ('via = "smarthost"', 'entry 2: via: "smarthost" is no way for mail; there are "smtp'),
        ('via = "smtp:mail.example"', "is without a port"),
        ('via = "lmtp:store.example:25"', "is LMTP at port 25"),
        ('via = "lmtp:/run/lmtp"', 'as in "lmtp:unix:/run/dovecot/lmtp"'),
        ('via = "lmtp:unix:"', "is without a path"),
        ('via = "hold:"', "is no way for mail"),
        ('via = "mx:there.example"', "is no way for mail"),
        ('via = "refuse"', "is no way for mail"),
        ('via = "refuse:250 ok"', "is no refusal, such as"),
        ('via = "refuse:421 4.3.2 go"', "is no refusal, such as"),
        ('via = "refuse:550 4.7.1 which?"', "is no refusal, such as"),
        ('via = "refuse:550 5.7.1 grüße"', "is no refusal, such as"),
        ('via = "mx"\nrecipients = "our dom"', 'recipients: "our dom" is no address, domain or'),
        ('via = "mx"\nrecipients = "<>"', 'recipients: "<>" is no address, domain or'),
        ('via = "mx"\nsenders = ["*"]', 'senders: "*" is no address, domain or ".domain"'),
        ('via = "mx"\nrecipients = []', "recipients: nobody is in this list"),
        ('via = "mx"\nrecipients = [1]', "recipients: takes an address, domain or"),
        ('via = "mx"\nrecipient = "a.dom"', 'recipient: no such key; did you mean "recipients"?'),
        ('via = "mx"\ntls = "required"', 'tls is for a host, by "smtp:" or "lmtp:"'),
        ('via = "hold"\npassword-file = "pw"', "password-file is for a host"),
        ('via = "smtp:a.example:25"\ntls = "x"', 'tls: "x" is none of them; there are required'),
        ('via = "smtp:a.example:25"\nlogin = "ann"', "login and password-file need each other"),
        ('via = "smtp:a.example:25"\npassword-file = "p"', "login and password-file need each"),
        (SMART + '\ntls = "opportunistic"', "could give the password to somebody in between"),
        (SMART + '\ntls = "none"\nca-file = "x"', "could give the password"),
        ('via = "smtp:a.example:25"\nca-file = "x"\ntls = "none"', "else nobody is verified"),
        ('via = "mx"\nlifetime = "5 weeks"', 'lifetime: "5 weeks" is no time above 0, such as'),
        ('via = "mx"\nfirst-retry = 0', "first-retry:"),
        ('via = "mx"\nfirst-retry = true', "first-retry: takes a number of seconds, or a text"),
        ('via = "mx"\nnotice = "soon"', 'notice: "soon" is no time above 0'),
        (
            'via = "mx"\nfirst-retry = 60\nlongest-retry = 30',
            "longest-retry: it has to be as long as",
        ),
    ],
)
def test_a_wrong_entry_is_named_with_what_is_accepted(entry: str, words: str) -> None:
    message = wrong('via = "mx"', entry)
    assert message.startswith("smtp.toml: routes: entry 2: ")
    assert words in message


def test_routes_are_tables() -> None:
    with pytest.raises(ConfigError, match="routes: takes tables, each below its own"):
        build(parse('routes = ["mx"]', "smtp.toml", FOLDER))


def test_a_domain_lives_here_or_elsewhere() -> None:
    text = 'local-domains = ["a.dom", "b.dom"]\nrelay-domains = ["B.dom"]'
    with pytest.raises(ConfigError, match=r"b\.dom is both in local-domains and relay-domains"):
        build(parse(text, "smtp.toml", FOLDER))


TEXTS = st.text(max_size=30) | st.sampled_from(
    ["smtp:a:25", "lmtp:unix:/x", "mx", "our.dom", "5 d", "never", "hold:x", "required"]
)
ENTRIES = st.dictionaries(
    st.sampled_from(sorted(ROUTE)) | st.text(max_size=5),
    TEXTS | st.lists(TEXTS, max_size=2) | st.integers() | st.booleans() | st.none(),
    max_size=4,
)


@given(st.lists(ENTRIES, max_size=2))
def test_any_entries_are_read_or_are_an_error_in_words(entries: list[dict[str, Any]]) -> None:
    wrong, found = "", None
    try:
        found = read_routes(entries, FOLDER)
    except ValueError as error:
        wrong = str(error)
    if found is None:
        assert wrong.startswith("entry ")
    else:
        assert len(found) == len(entries)
        assert all(str(route) and route.whose for route in found)


# The rules they come to


def made(tmp_path: Path, *entries: str) -> list[Rule]:
    text = "".join(f"[[routes]]\n{entry}\n" for entry in entries)
    return rules_of(build(parse(text, "smtp.toml", tmp_path)).routes)


def host_of(rule: Rule) -> Host:
    assert isinstance(rule.to, NextHop)
    return rule.to.hosts[0]


def test_a_rule_has_the_password_of_the_file_and_shows_it_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("secret\nand more\n")
    (rule,) = made(tmp_path, SMART + '\nsenders = "our.dom"\nlifetime = "1 h"')
    access = host_of(rule).access
    assert access is not None
    assert access.login == ("ann", "secret")
    assert (access.tls, access.login_in_clear) == (Tls.REQUIRED, False)
    assert (rule.senders, rule.recipients) == (("our.dom",), ())
    assert rule.schedule == Schedule(lifetime=3600)
    assert "secret" not in repr(RouteTable([rule]).rules)


def test_a_host_on_this_machine_may_see_a_password_in_clear(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("secret")
    near, socket = made(
        tmp_path,
        SMART.replace("smart.example", "localhost"),
        SMART.replace("smtp:smart.example:587", "lmtp:unix:/run/lmtp"),
    )
    for rule in (near, socket):
        access = host_of(rule).access
        assert access is not None
        assert access.login_in_clear


def test_each_host_of_several_has_the_login_and_a_password_is_safe_at_all_of_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "pw").write_text("secret")
    via = 'via = ["smtp:localhost:587", ["smtp:a.example:587", "smtp:b.example:465"]]'
    login = '\nlogin = "ann"\npassword-file = "pw"'
    (rule,) = made(tmp_path, via + login)
    assert isinstance(rule.to, NextHop)
    near, far, implicit = (host.access for host in rule.to.hosts)
    assert near == Access("opportunistic", ("ann", "secret"), login_in_clear=True)
    assert far == Access("required", ("ann", "secret"))
    assert implicit == Access("implicit", ("ann", "secret"))
    assert [len(level) for level in rule.to.levels] == [1, 2]
    assert "could give the password to somebody in between" in wrong(
        'via = "mx"', f'{via}{login}\ntls = "opportunistic"'
    )


def test_equal_entries_share_their_sessions_and_others_do_not(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("secret")
    ensure_certificate(tmp_path, ["smart.example"])
    ca = '\nca-file = "tls/cert.pem"'
    one, two, other, plain = made(
        tmp_path, SMART + ca, SMART + ca, SMART.replace("ann", "bob") + ca, SMART
    )
    assert one.to == two.to
    assert len({one.to, two.to, other.to, plain.to}) == 3


@pytest.mark.parametrize("entry", [SMART, 'via = "smtp:a.example:25"\nca-file = "ca.pem"'])
def test_a_file_that_is_missing_is_told(tmp_path: Path, entry: str) -> None:
    with pytest.raises(BadInput) as caught:
        made(tmp_path, entry)
    assert str(tmp_path) in str(caught.value)
