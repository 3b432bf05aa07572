"""A relay whose accounts are an application's own, in its database; and who may send as whom."""

import hashlib
import hmac
import os
import random
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import anyio
from anyio import to_thread

from smtpproto import Envelope
from smtpproto.client import Client
from smtpproto.core.path import Mailbox
from smtpproto.core.sasl import Verify
from smtpproto.handler import Session
from smtpproto.relay import (
    DnsResolver,
    Listener,
    Maildir,
    Relay,
    Router,
    SQLiteSpool,
)
from smtpproto.relay.accounts.guessing import Bucket, Guessing, Locked
from smtpproto.result import DeliveryError, LoginError


def hashed(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


class Users:
    """The users of an application, by its own table: name, salt, hash, address."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.hashing = anyio.CapacityLimiter(2)  # of 16 MiB each

    async def verify(self, session: Session, question: Verify) -> bool:
        """Authenticator: PLAIN and LOGIN are offered. Never on the event loop."""
        return await to_thread.run_sync(self._verify, question, limiter=self.hashing)

    async def may_send(self, identity: str, mailbox: Mailbox) -> bool:
        """SenderPolicy: for MAIL, and for each address in From and Sender."""
        row = await to_thread.run_sync(self._row, identity)
        return row is not None and str(mailbox).lower() == row[2]

    def _verify(self, question: Verify) -> bool:
        row = self._row(question.username)
        salt, stored = row[:2] if row else (b"nobody", b"")  # an unknown user costs as much
        right = hmac.compare_digest(hashed(question.password, salt), stored)
        return right and question.authorization in ("", question.username)

    def _row(self, name: str) -> tuple[bytes, bytes, str] | None:
        connection = sqlite3.connect(self.database)
        try:
            query = "SELECT salt, hash, address FROM users WHERE name = ?"
            found: tuple[bytes, bytes, str] | None = connection.execute(query, (name,)).fetchone()
            return found
        finally:
            connection.close()


def tell(locked: Locked) -> None:
    print(f"{locked.username} is locked out at {locked.network}")


def relay(folder: Path, spool: SQLiteSpool, users: Users) -> Relay:
    return Relay(
        hostname="mail.example.org",
        spool=spool,
        mailboxes=Maildir(
            folder / "mail", hostname="mail.example.org", now=time.time, random_bytes=os.urandom
        ),
        router=Router(
            local_domains=["example.org"],
            smart_host=None,
            resolver=DnsResolver(),
            shuffle=random.shuffle,
            hostname="mail.example.org",
        ),
        authenticator=users,
        senders=users.may_send,
        guard=Guessing(by_account=Bucket(failures=2, each=600), observe=tell),
    )


async def submit(port: int, password: str, sender: str) -> str:
    """Say what becomes of a message."""
    envelope = Envelope(sender, ["bo@example.org"])
    content = f"From: {sender}\r\nSubject: hello\r\n\r\nhello\r\n".encode()
    try:
        # In clear, which our own machine may: from elsewhere a login needs TLS.
        async with Client(
            "127.0.0.1", port, tls="none", login=("al", password), login_in_clear=True
        ) as client:
            await client.send(envelope, content)
    except LoginError as error:
        return str(error.reply)
    except DeliveryError as error:
        return str(error)
    return "sent"


def make_users(database: Path) -> Users:
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE users (name PRIMARY KEY, salt, hash, address)")
    al = ("al", b"salt", hashed("secret", b"salt"), "al@example.org")
    connection.execute("INSERT INTO users VALUES (?, ?, ?, ?)", al)
    connection.commit()
    connection.close()
    return Users(database)


async def main(folder: Path) -> None:
    users = await to_thread.run_sync(make_users, folder / "users.db")
    async with SQLiteSpool.open(folder / "spool") as spool, anyio.create_task_group() as tasks:
        node = relay(folder, spool, users)

        async def run(*, task_status: anyio.abc.TaskStatus[list[tuple[str, int]]]) -> None:
            await node.run([Listener("submission", "127.0.0.1", 0)], task_status=task_status)

        ((_, port),) = await tasks.start(run)
        print(await submit(port, "secret", "al@example.org"))
        print(await submit(port, "secret", "boss@example.org"))
        print(await submit(port, "wrong", "al@example.org"))
        print(await submit(port, "wrong", "al@example.org"))
        print(await submit(port, "secret", "al@example.org"))
        node.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        anyio.run(main, Path(sys.argv[1] if len(sys.argv) > 1 else name))
