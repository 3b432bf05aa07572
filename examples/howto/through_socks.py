"""Send through a SOCKS5 proxy: a connector for the client, made with python-socks.

python examples/howto/through_socks.py PROXY_URL HOST PORT SENDER RECIPIENT…
"""

import sys

import anyio
from anyio.abc import ByteStream
from python_socks import ProxyError
from python_socks.async_.anyio.v2 import Proxy

from smtpproto import Envelope
from smtpproto.client import Client


class SocksConnector:
    """Connects through the proxy at `url`, as in `socks5://user:secret@proxy.example:1080`."""

    def __init__(self, url: str) -> None:
        self.proxy = Proxy.from_url(url, rdns=True)  # it looks the host up, not we

    async def __call__(self, host: str, port: int) -> ByteStream:
        try:
            connection = await self.proxy.connect(host, port)
        except ProxyError as error:  # what it says about the host; no OSError yet
            raise OSError(f"the proxy says: {error}") from None
        return connection.anyio_stream


async def main(*arguments: str) -> None:
    url, host, port, sender, *recipients = arguments
    # TLS is with the server, all the way through the proxy; here it is left out for the test.
    client = Client(host, int(port), tls="none", connector=SocksConnector(url))
    async with client:
        print(await client.send(Envelope(sender, recipients), "Subject: Hi\n\nHello.\n"))


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
