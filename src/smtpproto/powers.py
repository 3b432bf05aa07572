"""What a handler and an authenticator can do, found out once.

To look whether an object has a Protocol's methods takes microseconds, and a server would do it at
each command of each session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias

from attrs import field, frozen

from .core.command import Command, Ehlo, Expn, Helo, Help, Lhlo, Noop, Rset, Vrfy
from .core.extension import Extension
from .core.reply import Reply
from .core.sasl import (
    Answer,
    Authorize,
    Lookup,
    Mechanism,
    Question,
    Verify,
    VerifyAnonymous,
    VerifyExternal,
    VerifyToken,
)
from .extensions.etrn import Etrn
from .extensions.xclient import XClient
from .extensions.xforward import XForward
from .handler import (
    AnonymousVerifier,
    Authenticator,
    Authorizer,
    Closer,
    Deliverer,
    ExternalVerifier,
    Handler,
    HeloJudge,
    Interceptor,
    Interpreter,
    KeyLookup,
    ListExpander,
    MailboxVerifier,
    QueueRunner,
    Session,
    TokenVerifier,
    Welcomer,
)

__all__ = ["Powers"]

#: What a small command is asked of.
CommandPower: TypeAlias = Callable[[Session, Any], Awaitable[Reply | None]]

#: Commands to which the server has an answer by itself.
_OURS = frozenset({Ehlo, Helo, Lhlo, Noop, Rset, Help, Vrfy, Expn, Etrn, XClient, XForward})

_ASKED: dict[type, type] = {
    Verify: Authenticator,
    VerifyToken: TokenVerifier,
    VerifyExternal: ExternalVerifier,
    VerifyAnonymous: AnonymousVerifier,
}


def _can_answer(authenticator: object, mechanism: Mechanism) -> bool:
    if mechanism.asks is Lookup:
        return isinstance(authenticator, KeyLookup) and mechanism.family in authenticator.stored
    power = _ASKED.get(mechanism.asks)
    return power is not None and isinstance(authenticator, power)


@frozen
class Powers:
    """The handler and the authenticator of a server, under each of the powers that they have.

    None where they do not have it. What is given to them later is not seen.
    """

    handler: Handler
    authenticator: object = field(repr=False)

    welcomer: Welcomer | None
    interceptor: Interceptor | None
    interpreter: Interpreter | None
    deliverer: Deliverer | None
    closer: Closer | None
    #: What the small commands are asked of.
    commands: Mapping[type[Command], CommandPower]
    #: What the handler offers by having the power for it.
    keywords: frozenset[str]
    #: What the authenticator can answer.
    mechanisms: tuple[Mechanism, ...]

    @classmethod
    def of(
        cls, handler: Handler, authenticator: object = None, mechanisms: Iterable[Mechanism] = ()
    ) -> Powers:
        """Find out what they can do, and which of the mechanisms that is enough for."""
        commands: dict[type[Command], CommandPower] = {}
        if isinstance(handler, HeloJudge):
            commands |= dict.fromkeys((Ehlo, Helo, Lhlo), handler.helo)
        if isinstance(handler, MailboxVerifier):
            commands[Vrfy] = handler.vrfy
        if isinstance(handler, ListExpander):
            commands[Expn] = handler.expn
        if isinstance(handler, QueueRunner):
            commands[Etrn] = handler.etrn
        return cls(
            handler,
            authenticator,
            welcomer=handler if isinstance(handler, Welcomer) else None,
            interceptor=handler if isinstance(handler, Interceptor) else None,
            interpreter=handler if isinstance(handler, Interpreter) else None,
            deliverer=handler if isinstance(handler, Deliverer) else None,
            closer=handler if isinstance(handler, Closer) else None,
            commands=commands,
            keywords=frozenset(verb.verb.decode() for verb in (Expn, Etrn) if verb in commands),
            mechanisms=tuple(m for m in mechanisms if _can_answer(authenticator, m)),
        )

    def for_command(self, command: Command) -> CommandPower | None:
        """Return what is asked about a small command: its power, or that for all that is not ours.

        None where there is none.
        """
        power = self.commands.get(type(command))
        if power is None and self.interpreter is not None and type(command) not in _OURS:
            return self.interpreter.unknown
        return power

    def offer(self, extensions: Iterable[Extension]) -> tuple[Extension, ...]:
        """Return those that oblige to nothing, or to what the handler has the power for."""
        return tuple(e for e in extensions if not e.obliges or e.keyword in self.keywords)

    async def put_question(self, session: Session, question: Question) -> Answer:
        """Put a question to the authenticator; None, which refuses, if it cannot say."""
        authenticator = self.authenticator
        match question:
            case Verify() if isinstance(authenticator, Authenticator):
                return await authenticator.verify(session, question)
            case Lookup() if isinstance(authenticator, KeyLookup):
                return await authenticator.lookup(session, question)
            case Authorize() if isinstance(authenticator, Authorizer):
                return await authenticator.authorize(session, question)
            case VerifyToken() if isinstance(authenticator, TokenVerifier):
                return await authenticator.verify_token(session, question)
            case VerifyExternal() if isinstance(authenticator, ExternalVerifier):
                return await authenticator.verify_external(session, question)
            case VerifyAnonymous() if isinstance(authenticator, AnonymousVerifier):
                return await authenticator.verify_anonymous(session, question)
            case _:
                return None
