"""The same mail by smtplib and by smtpproto.

SMTP_PASSWORD=… python examples/howto/come_from_smtplib.py HOST PORT USER SENDER RECIPIENT…
"""

import os
import smtplib
import ssl
import sys
from email.message import EmailMessage

from smtpproto import Envelope
from smtpproto.blocking import Client, send_message
from smtpproto.message import envelope_of


def before(host: str, port: int, login: tuple[str, str], message: EmailMessage) -> None:
    with smtplib.SMTP(host, port, timeout=30) as smtp:
        smtp.starttls(context=ssl.create_default_context())
        smtp.login(*login)
        smtp.send_message(message)


def after(host: str, port: int, login: tuple[str, str], message: EmailMessage) -> None:
    with Client(host, port, login=login) as client:
        client.send(envelope_of(message), message)


def at_once(host: str, port: int, login: tuple[str, str], message: EmailMessage) -> None:
    send_message(message, host, port, login=login)


def refused_before(smtp: smtplib.SMTP, sender: str, recipients: list[str], content: str) -> None:
    try:
        refused = smtp.sendmail(sender, recipients, content)
    except smtplib.SMTPRecipientsRefused as error:  # all of them
        refused = error.recipients
    for address, (code, text) in refused.items():
        print(address, code, text.decode())


def refused_after(client: Client, sender: str, recipients: list[str], content: str) -> None:
    for outcome in client.deliver(Envelope(sender, recipients), content).failed:
        print(outcome.forward_path.mailbox, outcome.reply)


def main(host: str, port: str, user: str, sender: str, *recipients: str) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, recipients, "Hello"
    message.set_content("It arrived.\n")
    login = (user, os.environ["SMTP_PASSWORD"])
    for way in (before, after, at_once):
        way(host, int(port), login, message)


if __name__ == "__main__":
    main(*sys.argv[1:])
