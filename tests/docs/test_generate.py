"""What the site is made with: citations, the ledger's pages, the tables, and whether links hold."""

import ast
import re
from pathlib import Path

import pytest

import smtpproto
from docs.generate.api import true_defaults
from docs.generate.citations import Citation, citations_of, cited, sections
from docs.generate.ledger import Ledger, Row
from docs.generate.links import broken_links
from docs.generate.rfc_pages import write_rfc_pages
from docs.generate.rst import Pages, prose
from docs.generate.source_pages import test_lines as lines_of_tests
from docs.generate.source_pages import write_source_pages
from docs.generate.tables import write_tables
from docs.generate.titles import TITLES
from smtpproto import blocking
from smtpproto.cli.app import COMMANDS
from smtpproto.cli.config import SETTINGS
from smtpproto.cli.routes import ROUTE
from smtpproto.client import Client
from smtpproto.core.command import BASE_VERBS
from smtpproto.core.status import REGISTRY
from smtpproto.handler import Handler
from smtpproto.mechanisms import STANDARD as MECHANISMS

ROOT = Path(__file__).parents[2]

# Citations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4.5.2", ["4.5.2"]),
        ("4.1.2-3", ["4.1.2", "4.1.3"]),
        ("4.1.1.9-11", ["4.1.1.9", "4.1.1.10", "4.1.1.11"]),
        ("2-4", ["2", "3", "4"]),
        ("5.1, 9", ["5.1", "9"]),
    ],
)
def test_sections(text: str, expected: list[str]) -> None:
    assert sections(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RFC 5321 §4.5.2", [(5321, "4.5.2")]),
        ("(RFC 5321\n§4.5.2)", [(5321, "4.5.2")]),
        ("RFC 5321 §4.1.2, §4.1.3", [(5321, "4.1.2"), (5321, "4.1.3")]),
        ("RFC 5802 §§5.1, 9", [(5802, "5.1"), (5802, "9")]),
        ("RFC 2852 section 4", [(2852, "4")]),
        ("RFC 3463, 5248", [(3463, ""), (5248, "")]),
        ("RFC 2033 and more", [(2033, "")]),
        ("RFC 2920 §3.1 and later §3.2", [(2920, "3.1"), (2920, "3.2")]),
        ("§4.2", [(1, "4.2")]),
        ("by RFC 3339, in UTC (§3)", [(3339, ""), (1, "3")]),
        ("nothing of 5321, and no section 4", []),
    ],
)
def test_what_a_text_cites(text: str, expected: list[tuple[int, str]]) -> None:
    assert [(rfc, section) for rfc, section, _, _ in cited(text, 1)] == expected


def test_without_an_rfc_a_section_is_nothing() -> None:
    assert list(cited("§4.2", None)) == []


def test_what_a_file_cites(tmp_path: Path) -> None:
    """Comments, docstrings and messages are read; names and numbers of the code are not."""
    file = tmp_path / "some.py"
    file.write_text(
        '"""DSN (RFC 3461): reports (§3)."""\n'
        "\n"
        "x = 5321  # §4.2, and RFC\n"
        "#          5321 §2.3.8\n"
        "\n"
        "def rfc_5322(): raise ValueError('RFC 5322 §3.6')\n"
    )
    assert citations_of(file, "some.py") == [
        Citation(3461, "", "some.py", 1),
        Citation(3461, "3", "some.py", 1),
        Citation(3461, "4.2", "some.py", 3),
        Citation(5321, "2.3.8", "some.py", 4),
        Citation(5322, "3.6", "some.py", 6),
    ]


def test_every_rfc_that_the_source_names_has_a_title() -> None:
    files = (ROOT / "src").rglob("*.py")
    assert {citation.rfc for file in files for citation in citations_of(file, "")} <= TITLES.keys()


# The ledger

TEST = "tests/docs/test_generate.py::test_sections"


def row(section: str, name: str, status: str, *tests: str) -> Row:
    reason = "" if tests else "It is `so`."
    return Row(5321, section, name, "One dot * more.", ("client",), status, reason, tests)


LEDGER = Ledger(
    (
        row("4.5.2", "dot-is-doubled", "tested", TEST),
        row("4.5.2", "Dot-Line", "by design"),
        row("4.5.10", "other", "not yet"),
    ),
    errors=("something_ is wrong",),
)
CITATIONS = [Citation(5321, "4.5.2", "src/smtpproto/core/content.py", 1)]


def written(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_a_page_for_each_rfc(tmp_path: Path) -> None:
    write_rfc_pages(Pages(tmp_path), LEDGER, CITATIONS, TITLES, lines_of_tests(ROOT, [TEST]))
    pages = written(tmp_path)
    assert set(pages) == {"index.rst", "rfc5321.rst"}
    page = pages["rfc5321.rst"]
    assert "3 rows: 1 tested, 1 by design, 1 not yet." in page
    assert "Of the 3 that bind a client or a server, 1 are tested." in page
    assert page.index(".. _rfc5321-4-5-2-dot-is-doubled:") < page.index(
        ".. _rfc5321-4-5-2-dot-line:"
    )
    assert page.index("§4.5.2") < page.index("§4.5.10")
    assert ":at:`core/content.py <reference/source/smtpproto/core/content>`" in page
    line = lines_of_tests(ROOT, [TEST])[TEST]
    assert f"<reference/source/tests/docs/test_generate#line-{line}>`" in page
    assert "It is \\ ``so``\\ ." in page
    assert r"something\_ is wrong" in pages["index.rst"]
    assert "33%" in pages["index.rst"]


def test_and_the_reverse(tmp_path: Path) -> None:
    pages = Pages(tmp_path)
    write_source_pages(pages, ROOT, LEDGER, CITATIONS, lines_of_tests(ROOT, [TEST]))
    source = (tmp_path / "smtpproto/core/content.rst").read_text()
    assert ":at:`RFC 5321 §4.5.2 <reference/rfc/rfc5321#rfc5321-4-5-2>`" in source
    assert ":emphasize-lines: 1\n" in source
    test = (tmp_path / "tests/docs/test_generate.rst").read_text()
    assert "<reference/rfc/rfc5321#rfc5321-4-5-2-dot-is-doubled>` dot-is-doubled: One dot" in test
    assert (tmp_path / "smtpproto/core/--init--.rst").exists()


def test_lines_of_tests() -> None:
    lines = lines_of_tests(ROOT, [TEST, "tests/docs/test_generate.py::test_not_written_out"])
    assert (ROOT / "tests/docs/test_generate.py").read_text().split("\n")[lines[TEST] - 1] == (
        "def test_sections(text: str, expected: list[str]) -> None:"
    )
    assert lines["tests/docs/test_generate.py::test_not_written_out"] == 1


def test_what_is_not_written_again_is_swept(tmp_path: Path) -> None:
    (tmp_path / "old.rst").write_text("")
    pages = Pages(tmp_path)
    pages.write("new.rst", "new")
    pages.sweep()
    assert written(tmp_path) == {"new.rst": "new"}


def test_prose_means_itself_but_for_code() -> None:
    assert prose("a*b_ `<a@b>` |c|") == r"a\*b\_ \ ``<a@b>``\  \|c\|"


# The tables


def test_the_tables_have_everything(tmp_path: Path) -> None:
    write_tables(Pages(tmp_path))
    tables = written(tmp_path)
    for extension in smtpproto.STANDARD:
        assert f"| `{extension.keyword}` |" in tables["extensions.md"]
    for mechanism in MECHANISMS:
        assert f"| `{mechanism.name}` |" in tables["mechanisms.md"]
    for subject, detail in REGISTRY:
        assert f"| X.{subject}.{detail} |" in tables["statuses.md"]
    for verb in BASE_VERBS:
        assert f"| `{verb.decode()}` |" in tables["suggested.md"]
    for name in smtpproto.__all__:
        assert re.search(rf"[.`]{name}`", tables["front-door.md"])
    for command in COMMANDS:
        assert f"\n## smtpproto {command}\n" in tables["command-line.md"]
    for setting in SETTINGS:
        assert f"\n## {setting}\n" in "\n" + tables["settings.md"]
    for key in ROUTE:
        assert f"\n### {key}\n" in tables["settings.md"]
    assert '- Default: `["localhost"]`' in tables["settings.md"]
    assert "| `message` | 26 214 400 |" in tables["limits.md"]
    assert "| `conversation.py` | 421 | 4.3.2 | Service shutting down |" in tables["fixed.md"]


def test_defaults_of_attrs_classes_are_those_that_are_written() -> None:
    """What Sphinx makes of the signature that attrs wrote, and what becomes of it."""
    given = (
        "(host: str, port: int = attr_dict['port'].default, *, tls=attr_dict['tls'].default, "
        "login: Credentials | tuple[str, str] | None = attr_dict['login'].default, "
        "mechanisms: Sequence[Mechanism] = attr_dict['mechanisms'].default, "
        "limits: Limits = NOTHING, connector: Connector = attr_dict['connector'].default)"
    )
    assert true_defaults(None, "class", "Client", Client, None, given, "") == (  # type: ignore[arg-type]  # it asks the application nothing
        "(host: str, port: int = 587, *, tls: Tls = Tls.REQUIRED, "
        "login: Credentials | tuple[str, str] | None = None, "
        "mechanisms: Sequence[Mechanism] = MECHANISMS, "
        "limits: Limits = Limits(), connector: Connector = connect_tcp)",
        "",
    )


def test_arguments_that_are_another_s_are_not_written_twice() -> None:
    for kind, thing, written in (
        ("class", blocking.Client, "(*arguments, **options)"),
        ("function", blocking.send_message, "(message, /, *arguments, **options)"),
    ):
        found = true_defaults(None, kind, "", thing, None, "(host: str)", "Result")  # type: ignore[arg-type]  # it asks the application nothing
        assert found == (written, "Result")


def test_a_protocol_has_no_arguments() -> None:
    found = true_defaults(None, "class", "", Handler, None, "(*args, **kwargs)", "")  # type: ignore[arg-type]  # it asks the application nothing
    assert found == ("", "")


def test_code_in_a_docstring_is_not_broken_over_two_lines() -> None:
    """What is, cannot be told from what opens and is not closed; the site would show both."""
    for file in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (ast.get_docstring(node) or "").splitlines()
                odd = [each for each in lines if each.count("`") % 2 and each[:4].strip()]
                assert not odd, f"{file}: {odd}"


# Links


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "style.css").write_text("")
    (tmp_path / "a/b.html").write_text(
        '<p id="here"><a href="#here"></a><a href="../c.html#x%20y"></a><a href="https://d/"></a>'
        '<a class="e" href="../style.css"></a>'
        '<a href="#gone"></a><a href="../c.html#gone"></a><a href="gone.html"></a>'
    )
    (tmp_path / "c.html").write_text('<a id="x y"></a><a href="a/b.html#here"></a>')
    assert list(broken_links(tmp_path, ["a/b.html", "c.html"])) == [
        "a/b.html: no such anchor: #gone",
        "a/b.html: no such anchor: ../c.html#gone",
        "a/b.html: no such page: gone.html",
    ]
