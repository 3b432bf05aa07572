"""The saved corpus, one file of base64 lines for each target; and findings, one file for each."""

import binascii
import hashlib
from pathlib import Path

__all__ = ["CORPUS", "FINDINGS", "findings", "load", "store", "store_finding"]

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FINDINGS = HERE / "findings"


def load(target: str) -> list[bytes]:
    """Return the inputs kept for a target."""
    file = CORPUS / f"{target}.txt"
    return (
        [binascii.a2b_base64(line) for line in file.read_bytes().split()] if file.exists() else []
    )


def store(target: str, inputs: set[bytes]) -> None:
    """Keep these and no others, the shortest first, so that a change shows as a few lines."""
    CORPUS.mkdir(exist_ok=True)
    kept = sorted(inputs - {b""}, key=lambda data: (len(data), data))
    (CORPUS / f"{target}.txt").write_bytes(b"".join(map(binascii.b2a_base64, kept)))


def findings(target: str) -> list[Path]:
    """Return the files of inputs that once failed; they are kept when they no longer do."""
    return sorted((FINDINGS / target).glob("*"))


def store_finding(target: str, data: bytes) -> Path:
    """Keep an input that fails; return its file."""
    file = FINDINGS / target / hashlib.sha256(data).hexdigest()[:12]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file
