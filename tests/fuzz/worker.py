"""One process of atheris: `python -m tests.fuzz.worker TARGET FOLDER OPTION...`

The folder holds `inputs`, which grow, and `failures`: of the inputs that fail at one place the
shortest, so that one finding does not end the run. The options are libFuzzer's.
"""

import hashlib
import importlib
import os
import sys
from pathlib import Path

from tests.fuzz.failure import place

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Fuzz until the options say that it is enough."""
    name, folder, *options = arguments
    failures = Path(folder) / "failures"
    atheris = importlib.import_module("atheris")  # nothing else needs it to be installed
    with atheris.instrument_imports(include=["smtpproto"]):
        targets = importlib.import_module("tests.fuzz.targets")
    run = targets.TARGETS[name]

    def one_input(data: bytes) -> None:
        try:
            run(data)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is a finding)
            file = failures / hashlib.sha256(place(error).encode()).hexdigest()[:12]
            if not file.exists() or len(data) < file.stat().st_size:
                file.write_bytes(data)

    # libFuzzer starts itself again to merge, by what it takes for its own name.
    program = os.environ.get("FUZZ_PROGRAM", sys.argv[0])
    atheris.Setup([program, *options], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
