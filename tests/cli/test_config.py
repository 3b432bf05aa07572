"""The settings of `serve`: what a file may say, and what is said of what it may not."""

from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_network
from math import inf
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.cli.config import SETTINGS, ConfigError, ServeSettings, build, load, parse
from smtpproto.cli.filters import FilterSettings
from smtpproto.cli.lists import ListSettings
from smtpproto.cli.routes import RouteSettings
from smtpproto.client import Tls
from smtpproto.relay import ByMx, HostPort, Schedule
from smtpproto.relay.filters import Limit
from smtpproto.relay.mailboxes.quota import Quota

FOLDER = Path("/etc/mail")

EVERYTHING = """
data = "data"
log = "json"
story-size = "1M"
user = "mail"
group = "smtp"
metrics = "127.0.0.1:9725"
listen = ":25"
submission = "[::1]:587"
submissions = ":465"
accounts = "accounts"
local-domains = ["example.org", "Example.NET"]
relay-domains = ["backup.example"]
verify-recipients = true
smart-host = "mail.example.com:465"
smart-host-tls = "implicit"
smart-host-login = "ann"
smart-host-password-file = "/run/secret"
relay-from = ["192.0.2.0/24", "2001:db8::/32"]
hostname = "mail.example.org"
max-message = "50M"
filters-fail = "defer"
mailbox-quota = "1G"
mailbox-quota-messages = 100000
subaddress-separator = "-"
subaddress-folders = true
verp = ["news@example.org"]
verp-separator = "-"
double-bounces = "postmaster@example.org"
dsn-to-all = true
first-retry = "15 min"
longest-retry = "2 h"
lifetime = "3 d"
notice = "never"
sessions-out = 30
sessions-out-each = 3
least-by = 300
longest-hold = "7 d"
keep-bcc = true
max-recipients = 100
sessions-in = 200
sessions-in-each = 10
check-senders = false

[mailbox-quotas]
"ann@example.org" = "5G"
bob = { size = "2G", messages = 1000 }
"carol@example.org" = { messages = 10 }
postmaster = "none"

[lists."dev@example.org"]
owner = "dev-owner@example.org"
members = ["ann@example.org", "bob@example.com"]
verp = true

[aliases]
"sales@example.org" = ["ann@example.org", "bob@example.com"]
root = "ann@example.org"
"@example.net" = "@example.org"

[[routes]]
recipients = "example.com"
via = "mx"

[[filters]]
use = "header"

[[limits]]
what = "messages"
per = "account"
most = 100
in = "1 h"
"""


def read(text: str) -> dict[str, Any]:
    return parse(text, "smtp.toml", FOLDER)


def wrong(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        build(read(text))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_setting_can_be_said_in_a_file() -> None:
    assert build(read(EVERYTHING)) == ServeSettings(
        data=FOLDER / "data",
        log="json",
        story_size=1 << 20,
        user="mail",
        group="smtp",
        metrics=HostPort("127.0.0.1", 9725),
        listen=HostPort("", 25),
        submission=HostPort("::1", 587),
        submissions=HostPort("", 465),
        accounts=FOLDER / "accounts",
        local_domains=("example.org", "example.net"),
        aliases={
            "sales@example.org": ("ann@example.org", "bob@example.com"),
            "root": ("ann@example.org",),
            "@example.net": ("@example.org",),
        },
        relay_domains=("backup.example",),
        verify_recipients=True,
        routes=(RouteSettings(ByMx(), recipients=("example.com",)),),
        lists={
            "dev@example.org": ListSettings(
                "dev-owner@example.org", ("ann@example.org", "bob@example.com"), verp=True
            )
        },
        verp=("news@example.org",),
        verp_separator="-",
        double_bounces="postmaster@example.org",
        dsn_to_all=True,
        first_retry=900,
        longest_retry=7200,
        lifetime=3 * 86400,
        notice=inf,
        sessions_out=30,
        sessions_out_each=3,
        least_by=300,
        longest_hold=7 * 86400,
        keep_bcc=True,
        max_recipients=100,
        sessions_in=200,
        sessions_in_each=10,
        check_senders=False,
        smart_host=HostPort("mail.example.com", 465),
        smart_host_tls=Tls.IMPLICIT,
        smart_host_login="ann",
        smart_host_password_file=Path("/run/secret"),
        relay_from=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")),
        hostname="mail.example.org",
        max_message=50 << 20,
        mailbox_quota=1 << 30,
        mailbox_quota_messages=100_000,
        mailbox_quotas={
            "ann@example.org": Quota(5 << 30),
            "bob": Quota(2 << 30, 1000),
            "carol@example.org": Quota(0, 10),
            "postmaster": Quota(),
        },
        subaddress_separator="-",
        subaddress_folders=True,
        filters=(FilterSettings("header"),),
        limits=(Limit("messages", "account", 100, 3600),),
        filters_fail="defer",
    )


def test_a_first_retry_that_is_long_makes_the_longest_as_long_and_the_other_way_round() -> None:
    assert build(read("first-retry = '6 h'")).longest_retry == 6 * 3600
    assert build(read("longest-retry = 60")).first_retry == 60
    usual = build(read("first-retry = '1 min'\nnotice = 'never'")).schedule
    assert usual == Schedule(first=60, notice=inf)


def test_nothing_said_is_a_node_on_loopback_that_relays_for_nobody() -> None:
    settings = build(read(""))
    assert settings == ServeSettings()
    assert settings.listen == HostPort("127.0.0.1", 2525)
    assert settings.submission == HostPort("127.0.0.1", 2587)
    assert settings.local_domains == ("localhost",)
    assert settings.relay_from == ()
    assert settings.smart_host is None


def test_settings_are_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        build({}).hostname = "other"  # type: ignore[misc]  # that is the point


def test_flags_override_the_file_and_those_not_given_do_not() -> None:
    flags = {"listen": HostPort("", 26), "data": None, "local_domains": (), "relay_from": ()}
    settings = build(read(EVERYTHING), flags)
    assert settings.listen == HostPort("", 26)
    assert settings.data == FOLDER / "data"
    assert settings.local_domains == ("example.org", "example.net")
    assert len(settings.relay_from) == 2


def test_an_empty_list_in_the_file_means_none() -> None:
    assert build(read("local-domains = []")).local_domains == ()


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("local_domains", "local-domains"),
        ("local-domain", "local-domains"),
        ("smarthost", "smart-host"),
        ("Hostname", "hostname"),
        ("relay-form", "relay-from"),
        ("max-size", "max-message"),
    ],
)
def test_a_wrong_key_is_named_with_the_one_that_was_meant(key: str, meant: str) -> None:
    message = wrong(f'{key} = "x"')
    assert message.startswith(f"smtp.toml: {key}: no such key")
    assert meant in message


def test_a_key_like_no_other_gets_the_list() -> None:
    message = wrong("zzz = 1")
    assert all(key in message for key in SETTINGS)


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("data = 1", "data", "a number was given"),
        ("listen = 25", "listen", "HOST:PORT"),
        ("listen = [':25']", "listen", "a list was given"),
        ("submission = true", "submission", "true or false was given"),
        ("local-domains = 'example.org'", "local-domains", 'a list of domain names, such as ["'),
        ("local-domains = ['a.example', 1]", "local-domains", "a list with a number in it"),
        ("relay-from = {a = 1}", "relay-from", "a table was given"),
        ("max-message = true", "max-message", "true or false was given"),
        ("verify-recipients = 'yes'", "verify-recipients", "true or false; a text was given"),
        ("max-message = 1.5", "max-message", "a number with a fraction was given"),
        ("hostname = 1979-05-27", "hostname", "a date or time was given"),
        ("smart-host-tls = false", "smart-host-tls", '"required", "opportunistic"'),
        ("[smart-host]\nport = 1", "smart-host", "a table was given"),
        ("aliases = ['a@b.example']", "aliases", "a table of names and whom each stands for"),
        ("[aliases]\nroot = ['a@b.example', 1]", "aliases", "a table was given"),
        ("[aliases]\nroot = true", "aliases", "a table was given"),
        ("mailbox-quota = true", "mailbox-quota", 'such as "1G"; true or false was given'),
        ("mailbox-quota-messages = '9'", "mailbox-quota-messages", "a number of messages; a text"),
        ("mailbox-quotas = '1G'", "mailbox-quotas", "a table of mailboxes and what each may hold"),
        ("[mailbox-quotas]\nbob = [1]", "mailbox-quotas", "a table was given"),
        ("[mailbox-quotas]\nbob = {messages = '1'}", "mailbox-quotas", "a table was given"),
        ("subaddress-separator = 1", "subaddress-separator", "a text of one character"),
        ("subaddress-folders = 'yes'", "subaddress-folders", "true or false; a text was given"),
        ("lists = ['a@b.example']", "lists", "a table for each list"),
        ("verp = 'news@a.example'", "verp", "a list of senders"),
        ("verp-separator = 1", "verp-separator", "a text of one character"),
        ("double-bounces = false", "double-bounces", "true or false was given"),
        ("dsn-to-all = 'yes'", "dsn-to-all", "true or false; a text was given"),
    ],
)
def test_a_wrong_type_names_file_key_and_what_is_accepted(text: str, key: str, words: str) -> None:
    message = wrong(text)
    assert message.startswith(f"smtp.toml: {key}: takes ")
    assert words in message


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("listen = 'localhost'", "listen", '"localhost" is without a port'),
        ("listen = 'localhost:99999'", "listen", "from 0 to 65535"),
        ("smart-host = 'mail.example.org'", "smart-host", "without a port"),
        ("local-domains = ['a.example', 'b c']", "local-domains", '"b c" is no domain name'),
        ("relay-from = ['192.0.2.1/24']", "relay-from", 'did you mean "192.0.2.0/24"?'),
        ("relay-from = ['0.0.0.0/0']", "relay-from", "open relay"),
        ("hostname = 'my host'", "hostname", '"my host" is no domain name'),
        ("max-message = 0", "max-message", "no size above 0"),
        ("max-message = -5", "max-message", "no size above 0"),
        ("max-message = '5X'", "max-message", '"25M"'),
        ("smart-host-tls = 'require'", "smart-host-tls", 'did you mean "required"?'),
        ("smart-host-tls = 'x'", "smart-host-tls", "there are required, opportunistic"),
        ("data = ''", "data", "no path"),
        ("smart-host-login = ''", "smart-host-login", "no user name"),
        ("[aliases]\nroot = 'ann'", "aliases", '"ann" is no address or @domain'),
        ("[aliases]\nroot = []", "aliases", '"root" stands for nobody'),
        ("mailbox-quota = '0'", "mailbox-quota", "no size above 0"),
        ("mailbox-quota-messages = 0", "mailbox-quota-messages", "0 is no number above 0"),
        ("[mailbox-quotas]\n'@our.dom' = 1", "mailbox-quotas", '"@our.dom" is no address or'),
        ("[mailbox-quotas]\nbob = 'much'", "mailbox-quotas", '"much" is no size above 0'),
        ("[mailbox-quotas]\nbob = {octets = 1}", "mailbox-quotas", '"bob" has "octets", and'),
        ("subaddress-separator = '++'", "subaddress-separator", '"++" is none of + - _'),
        ("subaddress-separator = '@'", "subaddress-separator", "nor empty"),
        ("[lists]\ndev = 'a@b.example'", "lists", '"dev" is no table with "owner"'),
        ("[lists.dev]\nmembers = ['a@b.example']", "lists", '"dev" needs an owner'),
        ("[lists.dev]\nowner = 'a@b.example'", "lists", '"dev" needs members'),
        ("[lists.dev]\nowner = 'a@b.example'\nmembers = []", "lists", "needs members"),
        ("[lists.dev]\nowner = 'ann'\nmembers = ['a@b.example']", "lists", '"ann" is no address'),
        ("[lists.dev]\nowner = 'a@b.example'\nmembers = [1]", "lists", '"1" is no address'),
        ("[lists.dev]\nowners = 'a@b.example'", "lists", 'did you mean "owner"?'),
        ("[lists.dev]\nzzz = 1", "lists", "there are owner, members, verp"),
        ("[lists.'a b@']\nowner = 'a@b.example'", "lists", '"a b@" is no address, local part or'),
        (
            "[lists.dev]\nowner = 'a@b.example'\nmembers = ['a@b.example']\nverp = 1",
            "lists",
            "verp is true or false",
        ),
        ("verp = ['news']", "verp", '"news" is no address'),
        ("verp-separator = '++'", "verp-separator", '"++" is no character that separates'),
        ("double-bounces = 'Postmaster'", "double-bounces", '"Postmaster" is no address'),
        ("[aliases]\n'a b@' = 'a@b.example'", "aliases", '"a b@" is no address, local part or'),
    ],
)
def test_a_wrong_value_names_file_key_and_what_is_accepted(text: str, key: str, words: str) -> None:
    message = wrong(text)
    assert message.startswith(f"smtp.toml: {key}: ")
    assert words in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("group = 'mail'", "group: it needs user"),
        ("listen = ':25'\nsubmission = ':25'", "they have to differ"),
        ("listen = ':25'\nsubmissions = ':25'", "listen and submissions are both"),
        ("submission = ':25'\nsubmissions = ':25'", "submission and submissions are both"),
        (
            "[aliases]\ndev = 'a@b.example'\n"
            "[lists.dev]\nowner = 'a@b.example'\nmembers = ['a@b.example']",
            "aliases: with lists: both an alias and a list: dev",
        ),
        ("verp = ['news@b.example']", "verp: news@b.example is in no local domain"),
        (
            "[lists.dev]\nowner = 'a@b.example'\nmembers = ['a@b.example']\nverp = true",
            "verp: a@b.example is in no local domain",
        ),
        ("verp = ['a@localhost', 'a+b@localhost']", "verp: return paths of a+b@localhost could be"),
        ("smart-host-login = 'ann'", "smart-host-login: it needs a smart-host"),
        ("smart-host-tls = 'none'", "smart-host-tls: it needs a smart-host"),
        (
            "smart-host = 'a.example:25'\nsmart-host-password-file = 'f'",
            "smart-host-password-file: it needs smart-host-login",
        ),
        (
            "smart-host = 'a.example:25'\nsmart-host-login = 'ann'\nsmart-host-tls = 'none'",
            "the password to somebody in between",
        ),
    ],
)
def test_settings_that_contradict_each_other(text: str, words: str) -> None:
    assert words in wrong(text)


def test_two_listeners_may_both_take_any_free_port() -> None:
    settings = build(read("listen = '127.0.0.1:0'\nsubmission = '127.0.0.1:0'"))
    assert settings.listen == settings.submission


@pytest.mark.parametrize(
    ("text", "tls"),
    [
        ("smart-host = 'a.example:25'", Tls.OPPORTUNISTIC),
        ("smart-host = 'a.example:465'", Tls.IMPLICIT),
        ("smart-host = 'a.example:587'\nsmart-host-login = 'ann'", Tls.REQUIRED),
        ("smart-host = 'a.example:465'\nsmart-host-login = 'ann'", Tls.IMPLICIT),
        ("smart-host = 'a.example:587'\nsmart-host-tls = 'required'", Tls.REQUIRED),
        (
            "smart-host = '127.0.0.1:25'\nsmart-host-login = 'a'\nsmart-host-tls = 'none'",
            Tls.NONE,
        ),
    ],
)
def test_a_login_at_the_smart_host_goes_by_tls(text: str, tls: Tls) -> None:
    assert build(read(text)).smart_host_tls is tls


def test_no_toml() -> None:
    assert wrong("listen =").startswith("smtp.toml: no TOML: ")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b"hostname = '\xff'"), "UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / "smtp.toml"
    make(path)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "smtp.toml"
    path.write_text('data = "here"\n')
    assert load(path) == {"data": tmp_path / "here"}


VALUES = st.recursive(
    st.one_of(st.text(max_size=20), st.integers(), st.floats(), st.booleans(), st.dates()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from(sorted(SETTINGS)), VALUES)
def test_any_value_is_read_or_is_a_config_error(key: str, value: object) -> None:
    try:
        SETTINGS[key].read(value, FOLDER)
    except (TypeError, ValueError):
        return
    tables = {"aliases", "lists", "mailbox-quotas"}
    assert isinstance(value, dict if key in tables else (str, int, bool, list))


@given(st.text())
def test_any_text_is_settings_or_a_config_error(text: str) -> None:
    with suppress(ConfigError):
        found = read(text)
        assert found.keys() <= {field.name for field in attrs.fields(ServeSettings)}
