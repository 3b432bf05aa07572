"""Send through a submission server, with TLS and a login; say what became of it.

SMTP_PASSWORD=… python examples/howto/send_with_login.py HOST PORT USER SENDER RECIPIENT…
"""

import os
import sys
from email.message import EmailMessage

import anyio

from smtpproto import Envelope
from smtpproto.client import Client
from smtpproto.result import ConnectError, Fate, LoginError, RefusedError, TlsError


async def submit(
    host: str, port: int, login: tuple[str, str], envelope: Envelope, message: EmailMessage
) -> bool:
    """Return whether everything has been accepted."""
    try:
        async with Client(host, port, login=login) as client:
            result = await client.deliver(envelope, message)
    except LoginError as error:
        print("wrong user or password:", error.reply)
    except TlsError as error:
        print("no TLS that can be relied on, so nothing was sent:", error)
    except RefusedError as error:
        print("the server does not want us:", error.reply)
    except ConnectError as error:
        print("no session, try again later:", error)
    else:
        for outcome in result.outcomes:
            match outcome.fate:
                case Fate.ACCEPTED:
                    print(outcome.forward_path, "is the server's business now")
                case Fate.TRANSIENT:
                    print(outcome.forward_path, "may go well later:", outcome.reply)
                case Fate.PERMANENT:
                    print(outcome.forward_path, "is refused:", outcome.reply)
                case Fate.UNKNOWN:
                    print(outcome.forward_path, "may have it, and may get it twice")
        return result.all_accepted
    return False


async def main(*arguments: str) -> None:
    host, port, user, sender, *recipients = arguments
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, recipients, "Hello"
    message.set_content("It arrived.\n")
    login = (user, os.environ["SMTP_PASSWORD"])
    if not await submit(host, int(port), login, Envelope(sender, recipients), message):
        sys.exit(1)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
