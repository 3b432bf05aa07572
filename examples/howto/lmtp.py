"""LMTP: hand a message to a mail store, and hear about each recipient by itself.

Here the store is ours, made of the core, at a UNIX socket as Dovecot has one.
"""

import tempfile
from pathlib import Path

import anyio
from anyio.abc import ByteStream

from smtpproto import (
    NEED_DATA,
    PAUSED,
    STANDARD,
    ConnectionClosed,
    EndOfContent,
    Envelope,
    Reply,
    ServerConnection,
)
from smtpproto.client import Client, UnixConnector
from smtpproto.result import Result

FULL = Reply(452, "4.2.2", "Mailbox full")
DELIVERED = Reply(250, "2.0.0", "Delivered")


async def deliver(path: Path, envelope: Envelope, content: str) -> Result:
    connector = UnixConnector(path)
    async with Client("localhost", lmtp=True, tls="none", connector=connector) as client:
        return await client.deliver(envelope, content)


async def serve(stream: ByteStream) -> None:
    """Take mail; `bo` has no room left."""
    store = ServerConnection("store.example.org", STANDARD, lmtp=True)
    verdicts: list[Reply] = []
    async with stream:
        while True:
            event = store.next_event()
            if event is PAUSED:
                # As many replies to the content as recipients were accepted (RFC 2033 §4.2).
                reply = verdicts.pop(0) if verdicts else store.suggested_reply()
                await stream.send(store.send(reply))
            elif event is NEED_DATA:
                store.receive_data(await stream.receive())
            elif isinstance(event, EndOfContent) and event.fault is None and store.envelope:
                paths = map(str, store.envelope.forward_paths)
                verdicts = [FULL if path == "<bo@example.org>" else DELIVERED for path in paths]
            elif isinstance(event, ConnectionClosed):
                return


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "lmtp"
        async with (
            await anyio.create_unix_listener(path) as listener,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(listener.serve, serve)
            envelope = Envelope("jo@example.net", ["al@example.org", "bo@example.org"])
            result = await deliver(path, envelope, "Subject: Hi\n\nHello.\n")
            for outcome in result.outcomes:
                print(outcome)
            for outcome in result.failed:
                print("not delivered:", outcome.forward_path)
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
