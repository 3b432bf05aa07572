"""`[[filters]]` and `[[limits]]` in the file of `serve`: what they say, and what of them."""

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.cli.config import ConfigError, ServeSettings, build, parse
from smtpproto.cli.filters import (
    COMMON,
    LIMIT,
    USES,
    FilterSettings,
    in_order,
    needs_memory,
    open_filters,
    read_filters,
    read_limits,
)
from smtpproto.cli.options import Failure
from smtpproto.relay.filters import (
    BlockList,
    ClientNames,
    Filter,
    Greylist,
    HeaderSanity,
    Limit,
    Limits,
    Networks,
)
from smtpproto.relay.filters.rspamd import Rspamd

EVERYTHING = """
filters-fail = "defer"

[[filters]]
use = "networks"
networks = ["192.0.2.0/24", "2001:db8::1"]

[[filters]]
use = "blocklist"
zone = "bl.example.org"
codes = ["127.0.0.2", "127.0.0.4"]
does = "tag"

[[filters]]
use = "names"
bare = "refuse"

[[filters]]
use = "greylist"
delay = "5 min"
window = "2 d"

[[filters]]
use = "limits"

[[filters]]
use = "header"
listeners = ["smtp", "submission"]

[[filters]]
use = "rspamd"
url = "http://127.0.0.1:11333"
rejects = "quarantine"
largest = "10M"
listeners = "submission"

[[limits]]
what = "messages"
per = "account"
most = 100
in = "1 h"

[[limits]]
what = "size"
per = "domain"
who = "Small.example"
most = "1M"
"""


def settings(text: str) -> ServeSettings:
    return build(parse(text, "smtp.toml", Path("/etc/mail")))


def wrong(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        settings(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def made(text: str, data: Path) -> dict[str, list[Filter]]:
    chosen = settings(text)
    async with open_filters(
        chosen.filters, chosen.limits, hostname="mx.our.dom", data=data
    ) as filters:
        return {kind: list(some) for kind, some in filters.items()}


@pytest.mark.anyio
async def test_each_listener_has_its_filters_in_their_order(tmp_path: Path) -> None:
    found = await made(EVERYTHING, tmp_path)
    strangers = [Networks, BlockList, ClientNames, Greylist]
    assert [type(each) for each in found["smtp"]] == [*strangers, Limits, HeaderSanity]
    assert [type(each) for each in found["submission"]] == [Limits, HeaderSanity, Rspamd]
    assert [type(each) for each in found["submissions"]] == [Limits]
    known, listed, names, grey, limits, header = found["smtp"]
    assert isinstance(known, Networks)
    assert known.networks == (ip_network("192.0.2.0/24"), ip_network("2001:db8::1"))
    assert isinstance(listed, BlockList)
    assert (listed.zone, listed.does) == ("bl.example.org", "tag")
    assert listed.codes == ("127.0.0.2", "127.0.0.4")
    assert isinstance(names, ClientNames)
    assert (names.hostname, names.bare, names.nameless) == ("mx.our.dom", "refuse", "tag")
    assert isinstance(grey, Greylist)
    assert (grey.delay, grey.window) == (300, 2 * 86400)
    assert isinstance(limits, Limits)
    assert limits.limits == (
        Limit("messages", "account", 100, 3600),
        Limit("size", "domain", 1 << 20, who="small.example"),
    )
    assert found["submission"][0] is limits
    assert found["submission"][1] is header
    spam = found["submission"][2]
    assert isinstance(spam, Rspamd)
    assert (spam.url, spam.quarantine, spam.largest) == ("http://127.0.0.1:11333", True, 10 << 20)


@pytest.mark.anyio
async def test_without_any_nothing_is_made_and_nothing_opened(tmp_path: Path) -> None:
    assert await made("", tmp_path) == {}
    assert len((await made('[[filters]]\nuse = "header"', tmp_path))["smtp"]) == 1
    assert not (tmp_path / "memory.db").exists()


@pytest.mark.anyio
async def test_what_is_remembered_lies_in_the_data(tmp_path: Path) -> None:
    await made('[[filters]]\nuse = "greylist"', tmp_path)
    assert (tmp_path / "memory.db").exists()
    (tmp_path / "memory.db").write_bytes(b"no database, but long enough for one" * 100)
    with pytest.raises(Failure) as caught:
        await made('[[filters]]\nuse = "greylist"', tmp_path)
    assert "memory.db: file is not a database" in caught.value.message


def test_limits_without_a_place_come_last_and_at_every_listener() -> None:
    chosen = settings(
        '[[filters]]\nuse = "header"\n[[limits]]\nwhat = "octets"\nper = "network"\nmost = "1G"\n'
        'who = "192.0.2.0/24"\nin = "1 d"'
    )
    last = in_order(chosen.filters, chosen.limits)[-1]
    assert last == FilterSettings("limits", ("smtp", "submission", "submissions"))
    assert needs_memory(chosen.filters, chosen.limits)
    assert str(chosen.limits[0]) == "1073741824 octets in 1 day"


def test_what_is_shown_of_an_entry() -> None:
    chosen = settings(EVERYTHING)
    assert [f"{each.use}: {each}" for each in chosen.filters] == [
        "networks: ",
        "blocklist: bl.example.org, tag",
        "names: ",
        "greylist: ",
        "limits: ",
        "header: at smtp and submission",
        "rspamd: http://127.0.0.1:11333, quarantine, at submission",
    ]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("", "filters: entry 1: use is missing: there are networks, blocklist"),
        ('use = "blocklists"', 'entry 1: use: "blocklists" is none of them; did you mean'),
        ("use = 1", 'entry 1: use: takes one of "networks", '),
        ('use = "blocklist"', "entry 1: zone is missing: blocklist takes a text"),
        ('use = "blocklist"\nzone = "no zone"', 'zone: "no zone" is no domain name'),
        ('use = "blocklist"\nzone = "a.b"\ncodes = "10.0.0.1"', "codes: "),
        ('use = "blocklist"\nzone = "a.b"\ncodes = []', "codes: there is nothing in this list"),
        ('use = "blocklist"\nzone = "a.b"\ndoes = "reject"', 'does: "reject" is none of them'),
        ('use = "greylist"\nzone = "a.b"', "zone: no such key; "),
        ('use = "greylist"\ndelay = "soon"', 'delay: "soon" is no time above 0'),
        ('use = "greylist"\ndelay = "2 d"', "window has to be longer than delay"),
        ('use = "greylist"\ndelay = 1.5', "delay: takes a number of seconds"),
        ('use = "header"\nlisteners = ["imap"]', 'listeners: "imap" is no listener'),
        ('use = "header"\nlisteners = []', "listeners: there is nothing in this list"),
        ('use = "names"\nlisteners = ["submission"]', "names looks at strangers"),
        ('use = "rspamd"', "entry 1: url is missing"),
        ('use = "rspamd"\nurl = "127.0.0.1:11333"', "no address of an HTTP server"),
        ('use = "rspamd"\nurl = "http://a:x"', "no address of an HTTP server"),
        ('use = "networks"', "entry 1: networks is missing"),
        ('use = "networks"\nnetworks = ["10.0.0.1/8"]', 'did you mean "10.0.0.0/8"?'),
        ('use = "limits"', 'use = "limits" needs [[limits]] that say which'),
        ('use = "header"\nlisteners = "submissions"', "and there is none"),
    ],
)
def test_a_wrong_filter_is_explained(entry: str, words: str) -> None:
    assert words in wrong(f"[[filters]]\n{entry}\n")


LIMITED = 'what = "messages"\nper = "account"\nmost = 1\nin = "1 h"'


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('what = "messages"\n', "", "limits: entry 1: what is missing"),
        ('"messages"', '"mails"', 'what: "mails" is none of them'),
        ('"account"', '"domain"', 'what = "messages" is not for a domain'),
        ("most = 1", "most = 0", 'most: "0" is no size above 0'),
        ("most = 1", "most = true", "most: takes a number"),
        ('in = "1 h"', "", "in is missing: it takes a number of seconds"),
        ('"messages"', '"size"', "in: the size of one message has no time"),
        ('in = "1 h"', 'in = "1 h"\nwho = ""', 'who: "" is no account, network or domain'),
        ('"account"', '"network"\nwho = "ann"', 'who: "ann" is no network'),
        ('"account"', '"account"\nwhom = "ann"', 'whom: no such key; did you mean "who"?'),
    ],
)
def test_a_wrong_limit_is_explained(old: str, new: str, words: str) -> None:
    assert words in wrong(f"[[limits]]\n{LIMITED.replace(old, new)}\n")


@pytest.mark.parametrize("text", ['filters = "greylist"', "limits = 1", "filters = [1]"])
def test_no_tables_are_explained(text: str) -> None:
    assert "takes tables, each below its own [[" in wrong(text)


def test_a_failing_filter_lets_mail_pass_or_wait() -> None:
    assert settings("").filters_fail == "pass"
    assert settings('filters-fail = "defer"').filters_fail == "defer"
    assert 'filters-fail: "refuse" is none of them' in wrong('filters-fail = "refuse"')


values = st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.lists(st.text())
keys = sorted({key for use in USES.values() for key in use.keys} | set(COMMON) | set(LIMIT))


@given(st.dictionaries(st.sampled_from(keys), values, max_size=4), st.sampled_from(sorted(USES)))
def test_any_entry_is_read_or_is_an_error_in_words(entry: dict[str, Any], use: str) -> None:
    for read, entries in (read_filters, [{**entry, "use": use}]), (read_limits, [entry]):
        try:
            found = read(entries, Path())
        except (ValueError, TypeError):
            continue
        assert len(found) == 1
