"""One client that sends many messages.

python run_client.py NAME PORT BEFORE MESSAGES SESSIONS RECIPIENTS OCTETS

NAME is `smtplib`, `aiosmtplib`, `smtpproto-asyncio`, `smtpproto-uvloop` or `smtpproto-trio`, or
`other`, which is the package of our name on PyPI, in an environment without ours. Each runs with
its own defaults. As many messages as BEFORE says go first, unmeasured, so that neither imports nor
first calls count; then it connects anew and prints what the messages cost, as one line of JSON:
`messages` that were accepted for all recipients, `seconds`, `cpu` in seconds of user and system
time, and `peak`, the most octets that were resident since it started. Run by
`servers_and_clients.py`.
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


def other_client(job: Job) -> Callable[[int], Awaitable[int]]:
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

    async def send(messages: int) -> int:
        return sum(await asyncio.gather(*map(session, shares(messages, job.sessions))))

    return send


def report(messages: int, seconds: float, cpu: float) -> None:
    told = {"messages": messages, "seconds": seconds, "cpu": cpu, "peak": peak()}
    print(json.dumps(told))


def measure(send: Callable[[int], int], before: int, messages: int) -> None:
    if before:
        send(before)
    seconds, cpu = time.perf_counter(), time.process_time()
    accepted = send(messages)
    report(accepted, time.perf_counter() - seconds, time.process_time() - cpu)


async def measure_async(send: Callable[[int], Awaitable[int]], before: int, messages: int) -> None:
    if before:
        await send(before)
    seconds, cpu = time.perf_counter(), time.process_time()
    accepted = await send(messages)
    report(accepted, time.perf_counter() - seconds, time.process_time() - cpu)


def main(name: str, *numbers: int) -> None:
    port, before, messages, sessions, recipients, octets = numbers
    addresses = [f"recipient{number}@example.test" for number in range(recipients)]
    job = Job(port, sessions, addresses, content(octets))
    library, _, loop = name.partition("-")
    if library == "smtplib":
        measure(smtplib_client(job), before, messages)
    elif library in ("aiosmtplib", "other"):
        make = aiosmtplib_client if library == "aiosmtplib" else other_client
        asyncio.run(measure_async(make(job), before, messages))
    else:
        import anyio  # noqa: PLC0415 - none pays for another

        anyio.run(measure_async, smtpproto_client(job), before, messages, **backend(loop))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
