"""A DNS for as many domains as one likes: python run_dns.py HOST PORT DOMAINS DOWN.

Of the domains 0.d.test, 1.d.test, ... each has an MX of its own with an address of its own in
10.98.0.0/16, but every DOWNth (0: none), whose address is in 10.97.0.0/16: in the half of it where
there is no way to, or in the one that never answers. See `network.py`.
"""

from __future__ import annotations

import socket
import struct
import sys

A, MX = 1, 15
TTL = 3600
ZONE = b"\1d\4test\0"
_SOA = ZONE + ZONE + struct.pack("!IIIII", 1, TTL, TTL, TTL, TTL)
SOA = ZONE + struct.pack("!HHIH", 6, 1, TTL, len(_SOA)) + _SOA


def name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def address(number: int, down: int) -> bytes:
    if down and number % down == 0:
        silent = number // down % 2
        return bytes([10, 97, 128 * silent + number // 250, number % 250 + 1])
    return bytes([10, 98, number // 250, number % 250 + 1])


def answer(query: bytes, domains: int, down: int) -> bytes:
    """Answer one question, as if nobody ever asked several."""
    labels: list[str] = []
    at = 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii", "replace").lower())
        at += 1 + length
    question = query[12 : at + 5]
    (kind,) = struct.unpack_from("!H", query, at + 1)
    is_host = labels[:1] == ["mx"]
    number, *zone = labels[is_host:] or [""]
    there = zone == ["d", "test"] and number.isdecimal() and int(number) < domains
    records = b""
    if there and kind == MX and not is_host:
        target = name(f"mx.{number}.d.test")
        records = struct.pack("!HHHIHH", 0xC00C, MX, 1, TTL, 2 + len(target), 10) + target
    elif there and kind == A and is_host:
        records = struct.pack("!HHHIH", 0xC00C, A, 1, TTL, 4) + address(int(number), down)
    soa = b"" if records else SOA  # by which one knows how long there will be nothing
    flags = 0x8580 | (0 if there else 3)  # an answer, with authority; no such name
    counts = struct.pack("!HHHHH", flags, 1, bool(records), bool(soa), 0)
    return query[:2] + counts + question + records + soa


def main(host: str, port: str, domains: str, down: str) -> None:
    with (
        socket.create_server((host, int(port))) as _,  # by which one sees that it is there
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked,
    ):
        asked.bind((host, int(port)))
        while True:
            query, peer = asked.recvfrom(4096)
            asked.sendto(answer(query, int(domains), int(down)), peer)


if __name__ == "__main__":
    main(*sys.argv[1:])
