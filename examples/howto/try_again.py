"""Send a message, and try again where that is sensible: waits between attempts, seconds, by commas.

python examples/howto/try_again.py HOST PORT WAITS SENDER RECIPIENT… (no TLS: it is a demo)
"""

import sys
from collections.abc import Iterable
from email.message import EmailMessage

import anyio

from smtpproto import Envelope
from smtpproto.client import Client
from smtpproto.pool import Pool
from smtpproto.result import ClientError, Fate, Outcome


async def send_patiently(
    pool: Pool[()], envelope: Envelope, message: EmailMessage, waits: Iterable[float]
) -> tuple[Envelope | None, list[Outcome]]:
    """Return an envelope for those for whom it is still to be tried, and who will not get it."""
    failed: list[Outcome] = []
    for wait in (0, *waits):
        await anyio.sleep(wait)
        try:
            result = await pool.deliver(envelope, message)
        except ClientError as error:  # there is no session, so nobody was asked
            print(error)
        else:
            failed += [one for one in result.failed if one.fate is not Fate.TRANSIENT]
            left = result.again(envelope)
            if left is None:
                return None, failed
            envelope = left
    return envelope, failed


async def main(*arguments: str) -> None:
    host, port, waits, sender, *recipients = arguments
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, recipients, "Hello"
    message.set_content("It arrived.\n")
    async with Pool(lambda: Client(host, int(port), tls="none")) as pool:
        left, failed = await send_patiently(
            pool, Envelope(sender, recipients), message, map(float, waits.split(","))
        )
    for outcome in failed:
        print(outcome)
    if left is not None:
        print("nobody knows yet:", *left.forward_paths)
    if left is not None or failed:
        sys.exit(1)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
