"""`python -m tests.differential`: compare what runs here with the record; `--write` replaces it."""

import argparse
import logging
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.adapters.world import certificates

from .page import AIOSMTPD, OURS, PAGE, POSTFIX, POSTFIX_STRICT, render
from .record import CASES, Observation, load, observe, save
from .servers import STRICT, our_server, with_aiosmtpd, with_postfix


def observe_all() -> dict[str, Observation]:
    """Start all servers, and play all cases to each."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        tls = certificates(Path(name))
        certificate = Path(name) / "localhost.pem"
        servers = {
            OURS: our_server(tls),
            AIOSMTPD: with_aiosmtpd(tls),
            POSTFIX: with_postfix(certificate),
            POSTFIX_STRICT: with_postfix(certificate, STRICT),
        }
        running = {name: stack.enter_context(server) for name, server in servers.items()}
        return {name: observe(server, tls.trusting) for name, server in running.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace the record and the page")
    write = parser.parse_args().write
    logging.disable(logging.CRITICAL)  # what servers say about such clients
    seen = observe_all()
    if write:
        save(seen)
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(render(seen), encoding="utf-8")
        return 0
    recorded = load()
    differing = [
        f"{name}: {case.name}: {recorded[name].answers.get(case.name)} was recorded,"
        f" {now.answers.get(case.name)} is answered now"
        for name, now in seen.items()
        for case in CASES
        if now.answers.get(case.name) != recorded[name].answers.get(case.name)
    ]
    print("\n".join(differing) or "all as recorded")
    return bool(differing)


if __name__ == "__main__":
    raise SystemExit(main())
