"""What every kind of odd input gets: the tables behind `docs/explanation/decisions.md`.

`python -m tests.core.decisions` writes that page; `test_decisions.py` holds both the page and
the server to the tables, which stand in the `decided_` files.
"""

import re
from pathlib import Path

from .decided_commands import COMMANDS
from .decided_content import CONTENT
from .decided_logins import LOGINS
from .decided_proxy import PROXIED
from .decided_replies import HEARD
from .decision import AFTER, BASIC, Decision, make_server

__all__ = ["BASIC", "DECISIONS", "PAGE", "Decision", "make_server", "render"]

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "decisions.md"

DECISIONS: dict[str, list[Decision]] = {**COMMANDS, **LOGINS, **CONTENT}


def _shown(octets: bytes, *, line: bool = True) -> str:
    text = "".join(chr(o) if 0x20 <= o < 0x7F else f"\\x{o:02x}" for o in octets)
    for octet, name in (("\\x0d", "\\r"), ("\\x0a", "\\n"), ("\\x09", "\\t"), ("\\x00", "\\0")):
        text = text.replace(octet, name)
    if line and not octets.endswith(b".\r\n"):
        text = text.removesuffix("\\r\\n")
    text = re.sub(r"(.)\1{39,}", lambda run: f"{run[1]}…({len(run[0])})…", text)
    return f"`` {text} ``" if "`" in text or text != text.strip() or not text else f"`{text}`"


def render() -> str:
    """Write the page."""
    page = [
        "# What odd input gets",
        "",
        "Each of these was decided once. The page is made from `tests/core/decisions.py`, and the",
        "tests send every row to a server (the last but one table: to a client), whole, octet by",
        "octet, and cut in two at every point (the longest lines: around their limits), so it",
        "cannot say what is not so.",
        "§ alone is RFC 5321. The reply is the suggested one; what a policy refuses is its own",
        "affair. In all rows but those that say *closed* the session stays in step.",
        "What stands in braces goes in base64.",
        "",
    ]
    for title, decisions in DECISIONS.items():
        page += [f"## {title}", "", "| after | input | reply | why |", "|---|---|---|---|"]
        for d in decisions:
            why = d.why.replace("|", "\\|")
            shown = _shown(d.shown or d.octets).replace("|", "\\|")
            page.append(f"| {AFTER[d.before]} | {shown} | {d.replies} | {why} |")
        page.append("")
    page += ["## Replies, to a client", ""]
    page += ["What is pulled of them; *closed* is a RemoteProtocolError, or 421.", ""]
    page += ["| asked | reply | pulled | why |", "|---|---|---|---|"]
    page += [f"| {h.asked} | {_shown(h.shown or h.octets)} | {h.result} | {h.why} |" for h in HEARD]
    page.append("")
    page += ["## The PROXY protocol, where a header is due", ""]
    page += ["§ is HAProxy's `doc/proxy-protocol.txt`. Whatever is refused closes, unanswered.", ""]
    page += ["| input | from | why |", "|---|---|---|"]
    page += [f"| {_shown(p.octets, line=False)} | {p.result} | {p.why} |" for p in PROXIED]
    page.append("")
    return "\n".join(page)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
