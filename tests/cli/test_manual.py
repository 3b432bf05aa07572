"""What is said of each setting: nothing is left out, and the examples are accepted."""

import tomllib
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.cli.config import SETTINGS, ServeSettings, build, parse
from smtpproto.cli.filters import (
    COMMON,
    LIMIT,
    USES,
    FilterSettings,
    open_filters,
    read_limits,
)
from smtpproto.cli.manual import MANUAL, ROUTE_MANUAL, default_of
from smtpproto.cli.manual_filters import COMMON_MANUAL, LIMIT_MANUAL, USE_MANUAL
from smtpproto.cli.routes import RETRIES, ROUTE, read_routes
from smtpproto.cli.values import duration, host_port, listen_address
from smtpproto.cli.written import written
from smtpproto.client import Tls
from smtpproto.relay.filters import Filter
from smtpproto.relay.mailboxes.quota import Quota

FOLDER = Path("/etc/mail")


def test_every_setting_is_explained_and_nothing_else() -> None:
    assert list(MANUAL) == list(SETTINGS)
    assert list(ROUTE_MANUAL) == list(ROUTE)
    assert all(told.means.endswith(".") for told in (*MANUAL.values(), *ROUTE_MANUAL.values()))


@pytest.mark.parametrize("name", MANUAL)
def test_an_example_is_accepted_and_not_the_default(name: str) -> None:
    settings = build(parse(MANUAL[name].example, "smtp.toml", FOLDER))
    field = name.replace("-", "_")
    assert getattr(settings, field) != getattr(ServeSettings(), field)


@pytest.mark.parametrize("name", ROUTE_MANUAL)
def test_an_example_of_a_route_is_accepted(name: str) -> None:
    entry = tomllib.loads(ROUTE_MANUAL[name].example)
    assert name in entry
    entry = {"via": "smtp:mail.example.com:25", **entry}
    if name == "ca-file":
        entry["tls"] = "required"
    assert read_routes([entry], FOLDER)


def test_every_key_of_a_filter_and_a_limit_is_explained_and_nothing_else() -> None:
    assert list(COMMON_MANUAL) == list(COMMON)
    assert list(LIMIT_MANUAL) == list(LIMIT)
    assert list(USE_MANUAL) == list(USES)
    for use, purpose in USE_MANUAL.items():
        assert list(purpose.keys) == list(USES[use].keys)
        keys = purpose.keys.values()
        assert all(means.endswith(".") for means in (purpose.means, *(k.means for k in keys)))
        assert all(each.default for each in keys)


FILTER_KEYS = [(use, key) for use, purpose in USE_MANUAL.items() for key in purpose.keys]


def entry_of(use: str, *more: str) -> str:
    """Write an entry with what it needs, and more."""
    needed = [USE_MANUAL[use].keys[key].example for key in USES[use].needs]
    return "\n".join(["[[filters]]", f'use = "{use}"', *dict.fromkeys([*needed, *more])])


def filters_of(text: str) -> FilterSettings:
    (found,) = build(parse(text, "smtp.toml", FOLDER)).filters
    return found


@pytest.mark.parametrize(("use", "key"), FILTER_KEYS)
def test_an_example_of_a_filter_is_accepted(use: str, key: str) -> None:
    example = USE_MANUAL[use].keys[key].example
    assert key in tomllib.loads(example)
    assert key in filters_of(entry_of(use, example)).given


@pytest.mark.anyio
@pytest.mark.parametrize(("use", "key"), FILTER_KEYS)
async def test_the_default_of_a_filter_is_its_own(use: str, key: str, tmp_path: Path) -> None:
    told = USE_MANUAL[use].keys[key].default
    if key in USES[use].needs:
        assert told == "none: it has to be there"
        return
    if key == "codes":
        return  # there is no word for all of them

    async def made(text: str) -> Filter:
        filters = [filters_of(text)]
        async with open_filters(filters, (), hostname="our.example", data=tmp_path) as found:
            (filter,) = found["smtp"]
            return filter

    said = told if told[0] == '"' or told.isdigit() else f'"{told}"'
    attribute = "quarantine" if key == "rejects" else key
    default, same, other = [
        getattr(await made(text), attribute)
        for text in (
            entry_of(use),
            entry_of(use, f"{key} = {said}"),
            entry_of(use, USE_MANUAL[use].keys[key].example),
        )
    ]
    assert default == same
    assert default != other


@pytest.mark.parametrize("key", COMMON_MANUAL)
def test_an_example_of_any_filter_is_accepted(key: str) -> None:
    assert key in tomllib.loads(COMMON_MANUAL[key].example)
    assert filters_of(f"[[filters]]\n{COMMON_MANUAL[key].example}").use == "header"


@pytest.mark.parametrize("key", LIMIT_MANUAL)
def test_an_example_of_a_limit_is_accepted(key: str) -> None:
    entry = tomllib.loads(LIMIT_MANUAL[key].example)
    assert key in entry
    assert len(read_limits([entry], FOLDER)) == 1


@pytest.mark.parametrize("name", [name for name, told in MANUAL.items() if not told.default])
def test_a_default_without_words_is_what_a_file_would_say(name: str) -> None:
    said = parse(f"{name} = {default_of(name)}", "smtp.toml", Path())
    assert build(said) == ServeSettings()


@pytest.mark.parametrize("name", [*RETRIES, "longest-hold"])
def test_a_default_in_words_is_the_one(name: str) -> None:
    assert duration(default_of(name)) == getattr(ServeSettings(), name.replace("-", "_"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "true"),
        (7, "7"),
        (3600.0, "3600"),
        (1234567.25, "1234567.25"),
        (Path("/var/\udcff"), '"/var/\\U0000fffd"'),
        (Tls.REQUIRED, '"required"'),
        (host_port("mail.example.org:25"), '"mail.example.org:25"'),
        (host_port("[::1]:25"), '"[::1]:25"'),
        (listen_address(":25"), '":25"'),
        (Path("/var/mail"), '"/var/mail"'),
        (("a", "b"), '["a", "b"]'),
        ({"@a.example": ("b",)}, '{ "@a.example" = ["b"] }'),
        ({"ann": Quota(5, 7)}, "{ ann = { size = 5, messages = 7 } }"),
        ({"ann": Quota(0, 0)}, '{ ann = { size = "none" } }'),
        ({}, "{}"),
        (inf, '"never"'),
    ],
)
def test_a_value_as_a_file_has_it(value: object, text: str) -> None:
    assert written(value) == text


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    assert tomllib.loads(f"x = {written(text)}") == {"x": text}


@pytest.mark.parametrize("name", ["service", "mailboxes", "routes"])
def test_the_files_of_the_guides_are_accepted(name: str) -> None:
    file = Path(__file__).parents[2] / "examples" / "howto" / f"{name}.toml"
    build(parse(file.read_text(), file.name, FOLDER))
