"""What a node in several processes tells of itself: what all of them tell, as one."""

from __future__ import annotations

from attrs import frozen

from smtpproto.workers import Crew, WorkerError

from .running import NotNowError

__all__ = ["Together"]


@frozen
class Together:
    """Asks all processes of a node."""

    crew: Crew

    async def metrics(self) -> bytes:
        """Return the sum of their numbers. NotNowError if one of them does not tell."""
        from smtpproto.relay.metrics import joined  # noqa: PLC0415 - an extra

        return joined(await self._ask("metrics"))

    async def must_be_ready(self) -> None:
        """Do nothing if all of them are ready; else raise NotNowError."""
        await self._ask("ready")

    async def _ask(self, question: str) -> list[bytes]:
        try:
            return await self.crew.ask(question)
        except WorkerError as error:
            raise NotNowError(str(error)) from None
