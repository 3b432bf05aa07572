"""The client for scripts: the same as `smtpproto.client`, without an event loop to be seen.

::

    with blocking.Client("mail.example.org", 587, login=("me", "secret")) as client:
        client.send(Envelope("me@example.org", ["you@example.net"]), message)

The loop that drives it turns only while a call waits, in the thread that called. So between calls
there is no thread, and nothing to be lost in a fork or to keep the interpreter from ending. What is
the caller's, iterables of content and observers, is run by the caller's thread as well, and never
within a loop.

Any thread may call, also one that runs an event loop of its own; that stands still meanwhile, so in
a coroutine you want `smtpproto.client`. Threads that share a client take turns. Ctrl-C ends a call
and breaks its transaction off, and the session where that was in the midst of something. A child
process leaves the session to its parent.

Threads that want to send at the same time share a `Pool`; so does a script that sends many
messages::

    def connect() -> blocking.Client:
        return blocking.Client("mail.example.org", 587, login=("me", "secret"))

    with blocking.Pool(connect) as pool:
        pool.send(Envelope("me@example.org", ["you@example.net"]), message)

        with pool.send_many(messages) as outcomes:
            for sent in outcomes:
                print(sent.number, sent.result)
"""

from __future__ import annotations

from .client import Client, send_message
from .content import BlockingContent
from .pool import Pool

__all__ = ["BlockingContent", "Client", "Pool", "send_message"]
