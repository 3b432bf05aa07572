"""A SASL mechanism of your own, both ends of it. For show: use SCRAM where you can.

XHMAC: the server sends a challenge; the client answers its name and an HMAC of the challenge.
"""

import hmac

import anyio

from smtpproto import Envelope, Mail, Rcpt, Reply
from smtpproto.client import Client
from smtpproto.core.sasl import (
    MALFORMED,
    AuthenticationError,
    Challenge,
    ClientSteps,
    Credentials,
    ExchangeError,
    Lookup,
    Mechanism,
    ServerContext,
    ServerSteps,
)
from smtpproto.mechanisms import STANDARD
from smtpproto.result import LoginError
from smtpproto.server import ContentStream, Server, Session


def proof(secret: bytes, challenge: bytes) -> bytes:
    return hmac.digest(secret, challenge, "sha256").hex().encode()


def server_steps(initial: bytes | None, context: ServerContext) -> ServerSteps:
    challenge = context.nonce().encode()
    response = yield Challenge(challenge)
    assert isinstance(response, bytes), "the answer to a Challenge"
    name, _, shown = response.rpartition(b" ")
    try:
        username = name.decode()
    except UnicodeDecodeError:
        raise AuthenticationError(MALFORMED) from None
    secret = yield Lookup(username, "XHMAC")
    known = isinstance(secret, bytes)
    # An unknown user takes as long as a wrong password, and gets the same reply.
    expected = proof(secret if isinstance(secret, bytes) else context.secret, challenge)
    if not hmac.compare_digest(expected, shown) or not known:
        raise AuthenticationError
    return username


def client_steps(credentials: Credentials) -> ClientSteps:
    challenge = yield None  # the server speaks first
    if challenge is None:
        raise ExchangeError("the server let us in without having asked for anything")
    secret = (credentials.password or "").encode()
    yield credentials.username.encode() + b" " + proof(secret, challenge)


XHMAC = Mechanism(
    "XHMAC",
    plaintext=False,  # a listener learns no secret: it may be offered in clear
    server=server_steps,
    client=client_steps,
    client_first=False,
    asks=Lookup,
)


class Secrets:
    """What the server has of its users."""

    stored = ("XHMAC",)

    async def lookup(self, session: Session, question: Lookup) -> bytes | None:
        return {"jo": b"open sesame"}.get(question.username)


class Members:
    """Takes mail from those who have logged in."""

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        return None if session.identity else Reply(530, "5.7.0", "Log in first")

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        return None

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        return Reply(250, "2.0.0", f"Thank you, {session.identity}")


async def main() -> None:
    ours = (XHMAC, *STANDARD)
    server = Server(Members(), authenticator=Secrets(), mechanisms=ours, failed_login_delay=0)
    envelope, text = Envelope("jo@example.org", ["al@example.org"]), "Subject: Hi\n\n"
    async with anyio.create_task_group() as tasks:
        host, port = await tasks.start(server.serve)
        for password in ("open sesame", "let me in"):
            try:
                async with Client(
                    host, port, tls="none", login=("jo", password), mechanisms=ours
                ) as client:
                    print(await client.send(envelope, text))
            except LoginError as error:
                print(error.reply)
        server.stop()


if __name__ == "__main__":
    anyio.run(main)
