"""Tests of a program that sends mail, with the fixtures of smtpproto: pytest test_sending.py."""

import smtplib
import ssl
import unittest
from collections.abc import Iterator
from email.message import EmailMessage

import pytest

from smtpproto import Envelope, Rcpt, Reply
from smtpproto.client import Client
from smtpproto.handlers import Discard
from smtpproto.server import Session
from smtpproto.testing import SOFT, Fault, SmtpServer

# What is tested: it sends with the standard library, and tries again what was put off.


class Mailer:
    def __init__(self, host: str, port: int, *, password: str = "", cafile: str = "") -> None:
        self.host, self.port, self.password, self.cafile = host, port, password, cafile

    def welcome(self, address: str, *, attempts: int = 1) -> None:
        message = EmailMessage()
        message["From"], message["To"] = "shop@example.org", address
        message["Subject"] = "Welcome"
        message.set_content("Your code is 4711\n")
        for attempt in range(1, attempts + 1):
            try:
                with smtplib.SMTP(self.host, self.port) as session:
                    if self.cafile:
                        session.starttls(context=ssl.create_default_context(cafile=self.cafile))
                    if self.password:
                        session.login("shop", self.password)
                    session.send_message(message)
            except (smtplib.SMTPRecipientsRefused, smtplib.SMTPServerDisconnected):
                if attempt == attempts:
                    raise
            else:
                return


# A server for one test


def test_the_welcome_has_the_code(smtp_server: SmtpServer) -> None:
    Mailer(smtp_server.host, smtp_server.port).welcome("ann@example.net")
    (received,) = smtp_server.wait_for(1)
    assert received.sender == "shop@example.org"
    assert received.recipients == ["ann@example.net"]
    assert received.message["Subject"] == "Welcome"
    assert "4711" in received.message.get_content()


@pytest.mark.anyio
async def test_in_a_coroutine(smtp_server: SmtpServer) -> None:
    async with Client(smtp_server.host, smtp_server.port, tls="none") as client:
        await client.send(Envelope("shop@example.org", ["ann@example.net"]), "Subject: Hi\n\n")
    (received,) = await smtp_server.arrives(1)
    assert received.message["Subject"] == "Hi"


# TLS and logins


@pytest.mark.smtp_server(tls="starttls", accounts={"shop": "secret"}, login_required=True)
def test_it_logs_in_under_tls(smtp_server: SmtpServer) -> None:
    cafile = str(smtp_server.authority.ca_file)
    mailer = Mailer("localhost", smtp_server.port, password="secret", cafile=cafile)
    mailer.welcome("ann@example.net")
    (received,) = smtp_server.messages
    assert received.session.identity == "shop"
    assert received.session.tls is not None


# What goes wrong


@pytest.mark.smtp_server(faults=[Fault("RCPT", SOFT, times=2)])
def test_it_tries_again(smtp_server: SmtpServer) -> None:
    mailer = Mailer(smtp_server.host, smtp_server.port)
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        mailer.welcome("ann@example.net")
    mailer.welcome("ann@example.net", attempts=2)
    assert len(smtp_server.messages) == 1


def test_a_lost_reply_makes_two_of_one(smtp_server: SmtpServer) -> None:
    smtp_server.faults = (Fault(".", cut="before", times=1),)  # the message was taken all the same
    Mailer(smtp_server.host, smtp_server.port).welcome("ann@example.net", attempts=2)
    assert len(smtp_server.messages) == 2


# Instead of smtpdfix


@pytest.fixture
def smtpd(smtp_server: SmtpServer) -> SmtpServer:
    """The name that your tests know."""
    return smtp_server


def test_as_it_was_with_smtpdfix(smtpd: SmtpServer) -> None:
    with smtplib.SMTP(smtpd.host, smtpd.port) as session:
        session.sendmail("a@example.org", ["b@example.org"], "Subject: Foo\r\n\r\nFoo bar")
    assert len(smtpd.messages) == 1
    assert smtpd.messages[0].message["Subject"] == "Foo"


# Instead of aiosmtpd's Controller


class OnlyExampleNet(Discard):
    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        here = command.forward_path.mailbox.domain == b"example.net"
        return None if here else Reply(550, "5.7.1", "Not here")


@pytest.fixture(scope="module")
def server() -> Iterator[SmtpServer]:
    with SmtpServer(OnlyExampleNet()) as running:
        yield running


def test_a_stranger_is_refused(server: SmtpServer) -> None:
    server.clear()
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        Mailer(server.host, server.port).welcome("ann@example.com")
    assert server.messages == []


class WelcomeTest(unittest.TestCase):
    def setUp(self) -> None:
        self.server = SmtpServer(OnlyExampleNet())
        self.server.start()
        self.addCleanup(self.server.stop)

    def test_a_friend_is_not(self) -> None:
        Mailer(self.server.host, self.server.port).welcome("ann@example.net")
        assert len(self.server.messages) == 1
