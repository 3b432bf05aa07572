"""One client that sends many messages.

python run_client.py NAME PORT MESSAGES SESSIONS RECIPIENTS OCTETS

NAME is `smtplib`, `aiosmtplib`, `smtpproto-asyncio` or `smtpproto-trio`. Each runs with its own
defaults. A tenth of the messages goes first, unmeasured, so that neither imports nor first calls
count; then it connects anew and prints what the messages cost, as one line of JSON: `messages`
that were accepted for all recipients, `seconds`, and `cpu`, in seconds of user and system time.
Run by `servers_and_clients.py`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

HOST = "127.0.0.1"
HELO_NAME = "client.example.test"
SENDER = "sender@example.test"


@dataclass(frozen=True)
class Job:
    port: int
    sessions: int
    recipients: list[str]
    content: bytes


def content(octets: int) -> bytes:
    """A short header and a body of at least `octets` octets, in lines of 76 and CRLF."""
    line = b"X" * 76 + b"\r\n"
    head = b"From: <%b>\r\nSubject: benchmark\r\n\r\n" % SENDER.encode()
    return head + line * -(-octets // len(line))


def shares(messages: int, sessions: int) -> list[int]:
    """Divide the messages among the sessions."""
    each, more = divmod(messages, sessions)
    return [each + (number < more) for number in range(sessions)]


def smtplib_client(job: Job) -> Callable[[int], int]:
    import smtplib  # noqa: PLC0415 - none pays for another

    def session(messages: int) -> int:
        with smtplib.SMTP(HOST, job.port, local_hostname=HELO_NAME) as client:
            refused = [
                client.sendmail(SENDER, job.recipients, job.content) for _ in range(messages)
            ]
        return sum(not one for one in refused)

    def send(messages: int) -> int:
        if job.sessions == 1:
            return session(messages)
        with ThreadPoolExecutor(job.sessions) as threads:
            return sum(threads.map(session, shares(messages, job.sessions)))

    return send


def aiosmtplib_client(job: Job) -> Callable[[int], Awaitable[int]]:
    import aiosmtplib  # noqa: PLC0415 - none pays for another

    async def session(messages: int) -> int:
        accepted = 0
        async with aiosmtplib.SMTP(
            hostname=HOST, port=job.port, start_tls=False, local_hostname=HELO_NAME
        ) as client:
            for _ in range(messages):
                refused, _text = await client.sendmail(SENDER, job.recipients, job.content)
                accepted += not refused
        return accepted

    async def send(messages: int) -> int:
        return sum(await asyncio.gather(*map(session, shares(messages, job.sessions))))

    return send


def smtpproto_client(job: Job) -> Callable[[int], Awaitable[int]]:
    import anyio  # noqa: PLC0415 - none pays for another

    from smtpproto import Envelope  # noqa: PLC0415
    from smtpproto.client import Client, Tls  # noqa: PLC0415

    envelope = Envelope(SENDER, job.recipients)

    async def send(messages: int) -> int:
        accepted = 0

        async def session(share: int) -> None:
            nonlocal accepted
            async with Client(HOST, job.port, tls=Tls.NONE, helo_name=HELO_NAME) as client:
                for _ in range(share):
                    result = await client.send(envelope, job.content)
                    accepted += result.all_accepted

        async with anyio.create_task_group() as sessions:
            for share in shares(messages, job.sessions):
                sessions.start_soon(session, share)
        return accepted

    return send


def report(messages: int, seconds: float, cpu: float) -> None:
    print(json.dumps({"messages": messages, "seconds": seconds, "cpu": cpu}))


def measure(send: Callable[[int], int], warm_up: int, messages: int) -> None:
    send(warm_up)
    seconds, cpu = time.perf_counter(), time.process_time()
    accepted = send(messages)
    report(accepted, time.perf_counter() - seconds, time.process_time() - cpu)


async def measure_async(send: Callable[[int], Awaitable[int]], warm_up: int, messages: int) -> None:
    await send(warm_up)
    seconds, cpu = time.perf_counter(), time.process_time()
    accepted = await send(messages)
    report(accepted, time.perf_counter() - seconds, time.process_time() - cpu)


def warm_up(messages: int, sessions: int) -> int:
    return max(messages // 10, sessions)


def main(name: str, *numbers: int) -> None:
    port, messages, sessions, recipients, octets = numbers
    addresses = [f"recipient{number}@example.test" for number in range(recipients)]
    job = Job(port, sessions, addresses, content(octets))
    counts = warm_up(messages, sessions), messages
    library, _, backend = name.partition("-")
    if library == "smtplib":
        measure(smtplib_client(job), *counts)
    elif library == "aiosmtplib":
        asyncio.run(measure_async(aiosmtplib_client(job), *counts))
    else:
        import anyio  # noqa: PLC0415 - none pays for another

        anyio.run(measure_async, smtpproto_client(job), *counts, backend=backend)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
