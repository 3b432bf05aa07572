"""One client that sends many messages.

python run_client.py NAME PORT BEFORE MESSAGES SESSIONS RECIPIENTS OCTETS WAY

NAME is `smtplib`, `aiosmtplib`, `smtpproto-asyncio`, `smtpproto-uvloop` or `smtpproto-trio`, or
`other`, which is the package of our name on PyPI, in an environment without ours. Each runs with
its own defaults. WAY is `plain`, or `reconnect` for a new connection for each message. As many
messages as BEFORE says go first, unmeasured, so that neither imports nor first calls count; then
it connects anew and prints what the messages cost, as one line of JSON: `messages` that were
accepted for all recipients, `seconds`, `cpu` in seconds of user and system time, and `peak`, the
most octets that were resident since it started. Run by `servers_and_clients.py`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module

from shared import HELO_NAME, HOST, SENDER, backend, content, peak, shares


@dataclass(frozen=True)
class Job:
    port: int
    sessions: int
    recipients: list[str]
    content: bytes
    reconnect: bool

    def connections(self, share: int) -> list[int]:
        """Return how many messages each connection takes, of those of one session."""
        return [1] * share if self.reconnect else [share]


#: Connects, sends so many messages, and returns how many of them were accepted.
Session = Callable[[int], int]
AsyncSession = Callable[[int], Awaitable[int]]


def smtplib_session(job: Job) -> Session:
    import smtplib  # noqa: PLC0415 - none pays for another

    def session(messages: int) -> int:
        with smtplib.SMTP(HOST, job.port, local_hostname=HELO_NAME) as client:
            refused = [
                client.sendmail(SENDER, job.recipients, job.content) for _ in range(messages)
            ]
        return sum(not one for one in refused)

    return session


def aiosmtplib_session(job: Job) -> AsyncSession:
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

    return session


def smtpproto_session(job: Job) -> AsyncSession:
    from smtpproto import Envelope  # noqa: PLC0415 - none pays for another
    from smtpproto.client import Client, Tls  # noqa: PLC0415

    envelope = Envelope(SENDER, job.recipients)

    async def session(messages: int) -> int:
        accepted = 0
        async with Client(HOST, job.port, tls=Tls.NONE, helo_name=HELO_NAME) as client:
            for _ in range(messages):
                result = await client.send(envelope, job.content)
                accepted += result.all_accepted
        return accepted

    return session


def other_session(job: Job) -> AsyncSession:
    """Return PyPI's `smtpproto`; it takes messages as objects only, and raises at any refusal."""
    import email  # noqa: PLC0415 - none pays for another
    import email.policy  # noqa: PLC0415

    their = import_module("smtpproto.client")  # not ours
    message = email.message_from_bytes(job.content, policy=email.policy.SMTP)

    async def session(messages: int) -> int:
        client = their.AsyncSMTPClient(HOST, job.port, domain=HELO_NAME)
        async with client.connect() as connected:
            for _ in range(messages):
                await connected.send_message(message, sender=SENDER, recipients=job.recipients)
        return messages

    return session


def measure(job: Job, session: Session, before: int, messages: int) -> None:
    def share_out(messages: int) -> int:
        def one(share: int) -> int:
            return sum(map(session, job.connections(share)))

        if job.sessions == 1:
            return one(messages)
        with ThreadPoolExecutor(job.sessions) as threads:
            return sum(threads.map(one, shares(messages, job.sessions)))

    if before:
        share_out(before)
    seconds, cpu = time.perf_counter(), time.process_time()
    accepted = share_out(messages)
    report(accepted, time.perf_counter() - seconds, time.process_time() - cpu)


#: Calls a coroutine function with each of some numbers, and returns the sum of what they return.
Gather = Callable[[AsyncSession, list[int]], Awaitable[int]]


async def asyncio_gather(one: AsyncSession, numbers: list[int]) -> int:
    return sum(await asyncio.gather(*map(one, numbers)))


async def anyio_gather(one: AsyncSession, numbers: list[int]) -> int:
    import anyio  # noqa: PLC0415 - none pays for another

    results: list[int] = []

    async def add(number: int) -> None:
        results.append(await one(number))

    async with anyio.create_task_group() as tasks:
        for number in numbers:
            tasks.start_soon(add, number)
    return sum(results)


async def measure_async(
    job: Job, session: AsyncSession, gather: Gather, before: int, messages: int
) -> None:
    async def one(share: int) -> int:
        return sum([await session(number) for number in job.connections(share)])

    if before:
        await gather(one, shares(before, job.sessions))
    seconds, cpu = time.perf_counter(), time.process_time()
    accepted = await gather(one, shares(messages, job.sessions))
    report(accepted, time.perf_counter() - seconds, time.process_time() - cpu)


def report(messages: int, seconds: float, cpu: float) -> None:
    told = {"messages": messages, "seconds": seconds, "cpu": cpu, "peak": peak()}
    print(json.dumps(told))


def main(name: str, way: str, *numbers: int) -> None:
    port, before, messages, sessions, recipients, octets = numbers
    addresses = [f"recipient{number}@example.test" for number in range(recipients)]
    job = Job(port, sessions, addresses, content(octets), way == "reconnect")
    library, _, loop = name.partition("-")
    if library == "smtplib":
        measure(job, smtplib_session(job), before, messages)
    elif library in ("aiosmtplib", "other"):
        make = aiosmtplib_session if library == "aiosmtplib" else other_session
        asyncio.run(measure_async(job, make(job), asyncio_gather, before, messages))
    else:
        import anyio  # noqa: PLC0415 - none pays for another

        anyio.run(
            *(measure_async, job, smtpproto_session(job), anyio_gather, before, messages),
            **backend(loop),
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[-1], *map(int, sys.argv[2:-1]))
