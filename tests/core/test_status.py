"""The registry of enhanced status codes (RFC 3463, 5248 and later ones)."""

import ast
from pathlib import Path

import pytest

import smtpproto
from smtpproto import EnhancedStatus
from smtpproto.core.status import CLASSES, REGISTRY, SUBJECTS

ALL_REPLIES = {code for meaning in REGISTRY.values() for code in meaning.replies}


@pytest.mark.rfc("5248 §2.4")
def test_the_registry_has_what_was_registered() -> None:
    details = {subject: [d for s, d in REGISTRY if s == subject] for subject in SUBJECTS}
    assert details == {
        0: [0],
        1: list(range(11)),
        2: list(range(5)),
        3: list(range(7)),
        4: list(range(8)),
        5: list(range(7)),
        6: list(range(11)),
        7: [*range(28), 29, 30],
    }


@pytest.mark.rfc("5248 §2.4")
@pytest.mark.parametrize(
    ("status", "rfc", "replies"),
    [
        ("5.1.1", 3463, (451, 550)),
        ("2.1.9", 3886, ()),
        ("5.1.10", 7505, (556,)),
        ("5.3.2", 3463, (453, 521)),
        ("2.3.6", 6710, (250, 251)),
        ("5.5.6", 4954, (500,)),
        ("5.6.6", 4468, (554,)),
        ("5.6.7", 6531, (550, 553)),
        ("5.7.8", 4954, (535, 554)),
        ("5.7.10", 5248, (523,)),
        ("5.7.15", 6710, (450, 550)),
        ("5.7.17", 7293, ()),
        ("5.7.24", 7372, (451, 550)),
        ("5.7.27", 7505, (550,)),
        ("5.7.30", 8689, (550,)),
    ],
)
def test_rows(status: str, rfc: int, replies: tuple[int, ...]) -> None:
    row = EnhancedStatus.parse(status).registered
    assert row is not None
    assert (row.rfc, row.replies) == (rfc, replies)


def test_every_row_says_something_of_its_own() -> None:
    texts = [meaning.text for meaning in REGISTRY.values()]
    assert len(set(texts)) == len(texts)
    assert all(
        text and text[0] == text[0].lower() and text[-1] != "."
        for text in texts
        if text[:4] not in ("SPF ", "TLS ")
    )
    assert all(200 <= code <= 559 for code in ALL_REPLIES)
    assert all(list(m.replies) == sorted(set(m.replies)) for m in REGISTRY.values())


@pytest.mark.rfc("3463 §2")
def test_unknown_ones_mean_what_is_known_of_them() -> None:
    assert EnhancedStatus(5, 1, 1).meaning == "no such mailbox"
    assert EnhancedStatus(5, 1, 999).meaning == REGISTRY[1, 0].text
    assert EnhancedStatus(4, 99, 1).meaning == CLASSES[4]
    assert EnhancedStatus(4, 99, 1).registered is None
    assert EnhancedStatus(5, 1, 999).registered is None


ROOT = Path(smtpproto.__file__).parent

#: What the registry does not list, and why it is right all the same (RFC 5248 §2: the lists are
#: not exclusive).
UNLISTED = {
    (452, "4.5.3"): "RFC 5321 §4.5.3.1.10 has 452 for too many recipients",
    (502, "5.5.1"): "RFC 3463 §3.6: X.5.1 is for what is unsupported, too",
    (421, "4.7.0"): "too many errors are a matter of policy; 421 is how a session ends",
}


def told() -> list[tuple[str, int, str | None]]:
    """Return each (place, code, status) that the core and what is beside it reply with."""
    found: list[tuple[str, int, str | None]] = []
    for room in ("core", "extensions", "mechanisms"):
        for file in sorted((ROOT / room).glob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    given = [a.value if isinstance(a, ast.Constant) else a for a in node.args]
                    place = f"{room}/{file.name}:{node.lineno}"
                    match node.func.id, given:
                        case "Reply", [int(code), str() | None as status, *_]:
                            found.append((place, code, status))
                        case "Reply", [int(code)]:
                            found.append((place, code, None))
                        case "GrammarError", [_, int(code), str(status)]:
                            found.append((place, code, status))
    return found


def test_these_are_found() -> None:
    codes = {code for _, code, _ in told()}
    assert codes >= {220, 221, 250, 252, 354, 421, 452, 500, 501, 502, 503, 504, 535, 552, 555}


@pytest.mark.rfc("3463 §2", "5248 §2.4", "2034 §4 class-agrees-with-the-code")
@pytest.mark.parametrize(("place", "code", "status"), told())
def test_every_reply_has_its_right_status(place: str, code: int, status: str | None) -> None:
    if status is None:
        # RFC 2034 §4: none in the greeting and in the reply to EHLO or HELO, and none for 3yz.
        assert code // 100 == 3 or code in (220, 250)
        return
    assert int(status[0]) == code // 100
    meaning = EnhancedStatus.parse(status).registered
    assert meaning is not None
    assert not meaning.replies or code in meaning.replies or (code, status) in UNLISTED


def test_nothing_is_excused_in_vain() -> None:
    assert set(UNLISTED) <= {(code, status) for _, code, status in told()}
