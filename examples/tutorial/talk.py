from email.message import EmailMessage

import anyio

from smtpproto import Envelope
from smtpproto.client import Client


async def main() -> None:
    message = EmailMessage()
    message["From"], message["To"] = "me@example.org", "you@example.net"
    message["Subject"] = "Grüße"
    message.set_content("It arrived, umlauts and all: äöü.\n")
    message.add_attachment("a,b\n1,2\n", subtype="csv", filename="numbers.csv")

    recipients = ["you@example.net", "hidden@example.net"]
    async with Client("127.0.0.1", 2525, tls="none", trace=print) as client:
        result = await client.deliver(Envelope("me@example.org", recipients), message)
    for outcome in result.outcomes:
        print(outcome.forward_path, outcome.fate.value)


anyio.run(main)
