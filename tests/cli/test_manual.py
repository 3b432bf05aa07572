"""What is said of each setting: nothing is left out, and the examples are accepted."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.cli.config import SETTINGS, ServeSettings, build, parse
from smtpproto.cli.manual import MANUAL, ROUTE_MANUAL, default_of
from smtpproto.cli.routes import ROUTE, read_routes
from smtpproto.cli.values import host_port, listen_address
from smtpproto.cli.written import written
from smtpproto.client import Tls
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


@pytest.mark.parametrize("name", [name for name, told in MANUAL.items() if not told.default])
def test_a_default_without_words_is_what_a_file_would_say(name: str) -> None:
    said = parse(f"{name} = {default_of(name)}", "smtp.toml", Path())
    assert build(said) == ServeSettings()


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
