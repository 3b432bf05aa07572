"""A client of TLS 1.3 that has its keys in hand, and so may send records that no library sends."""

import hmac
import ssl
from pathlib import Path

from anyio import EndOfStream
from anyio.abc import ByteStream
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["Keys", "Records", "shake_hands"]

HANDSHAKE, APPLICATION_DATA = 22, 23
SUITE = "TLS_AES_256_GCM_SHA384"
#: KeyUpdate, which asks for another in return (RFC 8446 §4.6.3).
KEY_UPDATE = b"\x18\0\0\x01\x01"


class Keys:
    """What one side's records are sealed with, generation after generation (RFC 8446 §7)."""

    def __init__(self, secret: bytes) -> None:
        self._renew(secret)

    def _renew(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(self._expand(b"key", 32))
        self._iv = int.from_bytes(self._expand(b"iv", 12), "big")
        self._sequence = 0

    def _expand(self, label: bytes, octets: int) -> bytes:
        label = b"tls13 " + label
        info = octets.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0\x01"
        return hmac.digest(self._secret, info, "sha384")[:octets]

    def seal(self, kind: int, octets: bytes) -> bytes:
        """Make one record of that (§5.2)."""
        head = b"\x17\x03\x03" + (len(octets) + 17).to_bytes(2, "big")
        nonce = (self._iv ^ self._sequence).to_bytes(12, "big")
        self._sequence += 1
        return head + self._cipher.encrypt(nonce, octets + bytes([kind]), head)

    def key_update(self) -> bytes:
        """Make a KeyUpdate, behind which the next generation begins."""
        record = self.seal(HANDSHAKE, KEY_UPDATE)
        self._renew(self._expand(b"traffic upd", 48))
        return record


class Records:
    """A session under way: `keys` are those of what we send."""

    def __init__(self, stream: ByteStream, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, keys: Keys):
        self.stream, self.keys = stream, keys
        self._tls, self._incoming = tls, incoming

    async def send(self, octets: bytes) -> None:
        await self.stream.send(self.keys.seal(APPLICATION_DATA, octets))

    async def receive(self) -> bytes:
        """Return what comes next of the application's data. EndOfStream at the end."""
        while True:
            try:
                octets = self._tls.read(65_536)
            except ssl.SSLWantReadError:
                self._incoming.write(await self.stream.receive())
            else:
                if not octets:
                    raise EndOfStream
                return octets


async def shake_hands(stream: ByteStream, context: ssl.SSLContext, file: Path) -> Records:
    """Shake hands with a server called localhost; the keys come by way of `file`."""
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.keylog_filename = str(file)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            await stream.send(outgoing.read())
            incoming.write(await stream.receive())
    await stream.send(outgoing.read())
    cipher = tls.cipher()
    assert cipher is not None
    assert cipher[0] == SUITE
    return Records(stream, tls, incoming, Keys(_secret_in(file)))


def _secret_in(file: Path) -> bytes:
    lines = [line.split() for line in file.read_text().splitlines()]
    (secret,) = [words[2] for words in lines if words[0] == "CLIENT_TRAFFIC_SECRET_0"]
    return bytes.fromhex(secret)
