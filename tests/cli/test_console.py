"""Nothing a stranger says may steer the screen."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpproto.cli.console import amount, dialogue, mark, out, per_second, safe, say, table


@given(st.one_of(st.text(), st.binary()))
@example("\x1b]0;title\x07")
@example("\x9b31m")
@example("a\r\nS: 250 forged")
@example("a\u2028b\u202ec\u200b")
@example(b"\xff\xfe")
@example("\ud800")
def test_safe_text_is_one_line_of_visible_characters(thing: str | bytes) -> None:
    shown = safe(thing)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1


def test_what_is_visible_stays_as_it_is() -> None:
    text = "Grüße, 世界! [bold]x[/bold] \\n"
    assert safe(text) == text


def test_octets_that_are_no_text_are_shown() -> None:
    assert safe(b"caf\xe9\x1b") == "caf\\xe9\\x1b"


def test_markup_and_emoji_of_strangers_are_printed_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = "250 [bold red]x[/] :smile: [link=http://a]b[/link]"
    dialogue(f"S: {said}")
    say(said)
    out().print(table("", rows=[[said]]))
    assert capsys.readouterr().out.count(said) == 3


def test_colours_only_for_terminals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(("x", "good"))
    assert capsys.readouterr().out == "x\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    say(("x", "good"))
    assert capsys.readouterr().out == "\x1b[32mx\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    say(("x", "good"))
    assert "\x1b[32m" not in capsys.readouterr().out


def test_long_lines_are_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    say("x" * 500)
    assert capsys.readouterr().out == "x" * 500 + "\n"


def test_signs_are_ascii_where_the_output_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ascii:
        encoding = "ascii"

    monkeypatch.setattr("sys.stdout", Ascii())
    assert all(mark(kind)[0].isascii() for kind in ("good", "bad", "warn"))


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (0, "0 octets"),
        (1, "1 octet"),
        (1023, "1023 octets"),
        (1024, "1 KiB"),
        (26_214_400, "25 MiB"),
        (1023 * 1024, "1023 KiB"),
        (5 << 40, "5120 GiB"),
    ],
)
def test_amounts(octets: int, words: str) -> None:
    assert amount(octets) == words


def test_rates() -> None:
    assert per_second(10, 2) == "5/s"
    assert per_second(10, 0) == "-"
