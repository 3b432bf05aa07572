"""aiosmtpd with its defaults and a handler that throws mail away: python run_aiosmtpd.py HOST PORT.

It serves until it is signalled, alone in its process. Run by `servers_and_clients.py`.
"""

from __future__ import annotations

import asyncio
import sys

from aiosmtpd.smtp import SMTP, Envelope, Session


class Discard:
    async def handle_DATA(  # noqa: N802 - the name that aiosmtpd looks for
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        return "250 2.0.0 OK"


async def main(host: str, port: int) -> None:
    def protocol() -> SMTP:
        return SMTP(Discard(), hostname="server.example.test")

    server = await asyncio.get_running_loop().create_server(protocol, host, port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
