"""The site's own Sphinx extension: makes the generated pages, and links what can be linked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from os.path import normpath
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.nodes import Node
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import ReferenceRole, SphinxRole
from sphinx.util.typing import ExtensionMetadata

from . import ledger as ledgers
from .api import (
    DropPlainFields,
    NameRole,
    add_source_links,
    code_in_backticks,
    public_bases,
    true_defaults,
    unresolved_name,
)
from .citations import Citation, citations_of, cited
from .ledger import Ledger, section_anchor
from .links import broken_links
from .rfc_pages import write_rfc_pages
from .rst import Pages
from .source_pages import SOURCE, source_page, test_lines, write_source_pages
from .tables import write_tables
from .titles import TITLES

__all__ = ["setup"]

ROOT = Path(__file__).parents[2]

log = logging.getLogger(__name__)


def generate(app: Sphinx) -> None:
    """Write the generated pages, before anything is read."""
    reference = Path(app.srcdir) / "reference"
    given = app.config.ledger_json
    told = ledgers.read(Path(given)) if given else ledgers.ask(ROOT)
    citations = [
        citation
        for file in sorted((ROOT / SOURCE).rglob("*.py"))
        for citation in citations_of(file, file.relative_to(ROOT).as_posix())
    ]
    lines = test_lines(ROOT, (test for row in told.rows for test in row.tests))
    rfcs, sources, tables = (Pages(reference / name) for name in ("rfc", "source", "generated"))
    write_rfc_pages(rfcs, told, citations, TITLES, lines)
    write_source_pages(sources, ROOT, told, citations, lines)
    write_tables(tables)
    for pages in (rfcs, sources, tables):
        pages.sweep()
    app.env.smtpproto_clauses = _clauses(told, citations)  # type: ignore[attr-defined]  # ours


def _clauses(told: Ledger, citations: list[Citation]) -> dict[tuple[int, str], str]:
    """Return where to read of a clause: page and anchor."""
    known = told.rfcs()
    sections = {(row.rfc, row.section) for row in told.rows}
    sections |= {(c.rfc, c.section) for c in citations if c.section and c.rfc in known}
    found = {(r, s): f"reference/rfc/rfc{r}#{section_anchor(r, s)}" for r, s in sections}
    return found | {(rfc, ""): f"reference/rfc/rfc{rfc}" for rfc in known}


def uri(app: Sphinx, target: str) -> str:
    """Return the way from the page that is being read to `page#anchor`."""
    page, hash_, anchor = target.partition("#")
    if page == app.env.docname:
        return hash_ + anchor
    return app.builder.get_relative_uri(app.env.docname, page) + hash_ + anchor


class AtRole(ReferenceRole):
    """`text <page#anchor>`: a link to what has been generated."""

    def run(self) -> tuple[list[Node], list[nodes.system_message]]:
        """Make the link."""
        target = uri(self.env.app, self.target)
        return [nodes.reference(self.rawtext, self.title, refuri=target, internal=True)], []


class ClassRole(SphinxRole):
    """Text of the class that the role is called by, and of `is-` what it says."""

    def run(self) -> tuple[list[Node], list[nodes.system_message]]:
        """Make the text."""
        classes = [self.name, f"is-{self.text.replace(' ', '-')}"]
        return [nodes.inline(self.rawtext, self.text, classes=classes)], []


def finish_listings(app: Sphinx, doctree: nodes.document) -> None:
    """Make every line of a listing an anchor, `line-12`; leave out empty lines at the end."""
    for block in doctree.findall(nodes.literal_block):
        text = block.astext().rstrip() + "\n"
        if block.rawsource == block.astext() != text:
            block.rawsource = text
            block.clear()
            block.append(nodes.Text(text))
        if "listing" in block.get("classes", ()):
            options = {"lineanchors": "line", "anchorlinenos": True}
            block["highlight_args"] = {**block.get("highlight_args", {}), **options}


def link_clauses(app: Sphinx, doctree: nodes.document) -> None:
    """Link every `RFC 5321 §4.5.2` in prose to its clause."""
    if app.env.docname.startswith(("reference/rfc/", "reference/source/")):
        return
    clauses: dict[tuple[int, str], str] = app.env.smtpproto_clauses  # type: ignore[attr-defined]
    for text in list(doctree.findall(nodes.Text)):
        within = text.parent
        if isinstance(within, (nodes.literal, nodes.literal_block, nodes.title, nodes.reference)):
            continue
        parts = list(_linked(app, str(text), clauses))
        if len(parts) > 1:
            within.replace(text, parts)


def _linked(app: Sphinx, text: str, clauses: dict[tuple[int, str], str]) -> Iterator[Node]:
    done = 0
    for rfc, section, start, end in cited(text, None):
        target = clauses.get((rfc, section))
        if target is None or start < done:
            continue
        if start > done:
            yield nodes.Text(text[done:start])
        yield nodes.reference("", text[start:end], refuri=uri(app, target), classes=["clause-link"])
        done = end
    if done < len(text):
        yield nodes.Text(text[done:])


def link_source(app: Sphinx, doctree: nodes.document) -> None:
    """Have links to files of the source, which a page has as it lies there, lead to their pages."""
    folder = Path(app.srcdir, app.env.docname).parent
    for download in list(doctree.findall(addnodes.download_reference)):
        file = Path(normpath(folder / download["reftarget"]))
        if file.is_relative_to(ROOT / SOURCE):
            target = uri(app, source_page(file.relative_to(ROOT).as_posix()))
            there = nodes.reference("", "", *download.children, refuri=target, internal=True)
            download.replace_self(there)


def check_links(app: Sphinx, error: Exception | None) -> None:
    """Warn of links that lead nowhere, when the site has been built."""
    if error is None and app.builder.name == "html":
        pages = [f"{page}.html" for page in (*app.env.all_docs, "genindex", "py-modindex")]
        for fault in broken_links(Path(app.outdir), pages):
            log.warning("%s", fault, type="smtpproto", subtype="link")


_navigation: dict[str, str] = {}


def share_navigation(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Make the navigation of the listings once for each folder: it costs more than they do."""
    if page.startswith("reference/source/") and page.count("/") > 2:
        make: Callable[..., str] = context["toctree"]
        folder = page.rpartition("/")[0]

        def made(**options: Any) -> str:
            if folder not in _navigation:
                _navigation[folder] = make(**options)
            return _navigation[folder]

        context["toctree"] = made


def setup(app: Sphinx) -> ExtensionMetadata:
    """Tell Sphinx of all this."""
    app.add_config_value("ledger_json", "", "env")  # a file that says what the ledger would
    app.add_role("name", NameRole())
    app.add_role("at", AtRole())
    for name in ("status", "binds", "clause-name", "dim"):
        app.add_role(name, ClassRole())
    app.connect("builder-inited", generate)
    app.add_transform(DropPlainFields)
    app.connect("doctree-read", finish_listings)
    app.connect("doctree-read", link_clauses)
    app.connect("doctree-read", link_source, priority=400)  # downloads are gathered at 500
    app.connect("doctree-read", add_source_links)
    app.connect("missing-reference", unresolved_name)
    app.connect("autodoc-process-bases", public_bases)
    app.connect("autodoc-process-docstring", code_in_backticks)
    app.connect("autodoc-process-signature", true_defaults)
    app.connect("build-finished", check_links)
    app.connect("html-page-context", share_navigation, priority=400)  # the theme asks at 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
