"""Find the server of an address, make sure of it, and log in there.

SMTP_PASSWORD=… python examples/howto/find_settings.py ADDRESS
"""

import os
import sys

import anyio
from anyio import to_thread

from smtpproto.client import Client
from smtpproto.discover import Candidate, discover
from smtpproto.result import LoginError


async def find(address: str) -> Candidate | None:
    """Return the server to use; None if there is none, or its user does not know it."""
    found = await discover(address)
    best = found.best
    if best is None:
        for finding in found.findings:
            print(f"{finding.asked}: {finding.found}")
        for candidate in found.candidates:
            print(f"{candidate.host}:{candidate.port}: {candidate.reason}")
    elif best.confirm and not await is_known(best):
        return None
    return best


async def is_known(server: Candidate) -> bool:
    """Ask whether this is the provider."""
    question = f"Is {server.host} your provider's? {server.confirm_reason} [yes/no] "
    return await to_thread.run_sync(input, question) == "yes"


async def log_in(server: Candidate, password: str) -> str | None:
    """Return the user name with which that goes."""
    for username in server.usernames:
        client = Client(
            server.host,
            server.port,
            tls=server.tls,
            server_name=server.server_name,
            login=(username, password),
        )
        try:
            async with client:
                return username
        except LoginError as error:
            print(f"not as {username}: {error.reply}")
    return None


async def main(*arguments: str) -> None:
    (address,) = arguments
    server = await find(address)
    if server is None:
        sys.exit(f"no server for {address}")
    username = await log_in(server, os.environ["SMTP_PASSWORD"])
    if username is None:
        sys.exit("wrong password")
    print(f"{server.host}:{server.port}, {server.tls.value}, as {username}")


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
