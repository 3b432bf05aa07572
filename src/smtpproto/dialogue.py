"""What is said in one session of a server, from the greeting to the goodbye."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import repeat
from typing import TypeVar, cast

import anyio
from attrs import evolve

from .conversation import HANDLER_FAILED, NOT_NOW, SHUTTING_DOWN, Conversation
from .core.command import (
    NOT_IMPLEMENTED,
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Data,
    Ehlo,
    Helo,
    Mail,
    Quit,
    Rcpt,
    StartTls,
)
from .core.envelope import Envelope
from .core.event import BadCommand, ConnectionClosed, EndOfChunk
from .core.refusal import UNRECOGNIZED
from .core.reply import Reply, Severity
from .core.sasl import (
    AuthenticationError,
    Challenge,
    ChannelBinding,
    Lookup,
    Question,
    ServerContext,
    ServerExchange,
    Verify,
    VerifyToken,
)
from .core.server_connection import ServerEvent
from .core.state import State
from .deadline import deadline
from .extensions.xclient import XClient
from .extensions.xforward import XForward
from .handler import ContentError, ContentStream, HangUp, Interceptor
from .stream import StreamLostError
from .trust import is_listed, take_for

__all__ = ["Dialogue"]

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Chunks of fewer octets count as commands do: they are hardly about content.
SMALL_CHUNK = 1024

TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections")
TOO_MANY_COMMANDS = Reply(421, "4.7.0", "Too many commands")
TOO_MANY_LOGINS = Reply(421, "4.7.0", "Too many failed logins")
NO_LOGIN_NOW = Reply(454, "4.7.0", "Temporary failure")
#: Where a client has begun something that a server's end should not cut off.
TRANSACTION = frozenset({State.MAIL, State.RCPT})

#: What is accepted by more than a reply.
MORE_FOLLOWS = (Ehlo, Helo, StartTls, Auth, Data, Bdat, XClient)

LOGGED_IN = Reply(235, "2.7.0", "Authentication successful")
BELIEVED = Reply(250, "2.0.0", "Noted")


class Dialogue(Conversation):
    """One session from greeting to goodbye."""

    async def begin(self) -> None:
        if self.deadlines.session is not None:
            self.end = self.alarm.now() + self.deadlines.session
        if not self.server.connections.enter(self, self.session.peer[0]):
            # No handshake for those, and no waiting: it would cost more than they are worth.
            self.parted = True
            if self.can_talk:
                await self.answer(TOO_MANY_CONNECTIONS)
            return
        if self.implicit_tls:
            await self.start_tls()
        elif self.early:
            self.connection.receive_data(self.early)
            self.early = b""  # heard: no part of any handshake
        if await self.greet():
            await self.converse()

    async def converse(self) -> None:
        while self.connection.state is not State.CLOSED:
            event = await self.next_command()
            if event is None:
                await self.answer(SHUTTING_DOWN)
            elif isinstance(event, ConnectionClosed):
                self.parted = True
                return
            else:
                await self.respond(event)

    async def greet(self) -> bool:
        if self.server.greeting_delay:
            self.wait("session", None)
            await self.pump.listen(self.server.greeting_delay)
            self.session.early_talker = self.connection.buffered > 0
        if (reply := await self.welcome()) is None:
            await self.answer(None)
        else:
            await self.answer(reply, failed=NOT_NOW)
        return self.connection.state is not State.CLOSED

    async def welcome(self) -> Reply | None:
        """Ask whether the client may come in."""
        welcomer = self.powers.welcomer
        if welcomer is None:
            return None
        return await self.ask(partial(welcomer.connect, self.session), failed=NOT_NOW)

    async def next_command(self) -> ServerEvent | None:
        """Wait for the next command; None when the server is to stop and no transaction is on."""
        idle = self.connection.state not in TRANSACTION
        event = self.pump.pull_at_hand() if self.connection.buffered else None
        if event is None and not (idle and self.stopping) and not self.pump.begin():
            await self.flush()  # so that no reply is cut off when the server stops
        if self.had_its_turn():  # also where it waits, for that may be no wait at all
            await self.let_others_go_on()
        if event is None:
            if idle and self.stopping:
                return None
            self.idle = idle
            try:
                self.wait("command", self.deadlines.command)
                event = await self.pump.wait()
            finally:
                self.idle = False
        # It may have come at the very moment: the alarm would cut off whoever is asked about it.
        if idle and self.stopping and not isinstance(event, ConnectionClosed):
            return None
        if self.server.trace is not None:
            self.show("C", event)
        return event

    def stop(self) -> None:
        """End the session where no transaction is on: the server stops."""
        self.stopping = True
        if self.idle:
            self.alarm.ring("stop")

    async def respond(self, event: ServerEvent) -> None:
        if self.is_one_too_many(event):
            await self.answer(TOO_MANY_COMMANDS)
            return
        handler = self.powers.handler
        interceptor = self.powers.interceptor
        if interceptor is not None and await self.is_intercepted(interceptor, event):
            return
        match event:
            case Mail():
                await self.judge(partial(handler.mail, self.session, event))
            case Rcpt():
                await self.judge(partial(handler.rcpt, self.session, event))
            case Data():
                await self.answer(None)
                await self.take_content()
            case Bdat():
                await self.take_content()
            case BadCommand():
                # Refused content is no error, nor are the chunks on their way behind it.
                behind = isinstance(event.command, Bdat) and self.connection.state is State.SPOILED
                if event.reply.code >= 500 and not behind:
                    await self.slow_down()
                await self.refuse(event)
            case Auth():
                await self.log_in(event)
            case StartTls():
                await self.answer(None)
                await self.start_tls()
            case Quit():
                self.parted = not self.connection.buffered
                await self.answer(None)
            case XClient() if is_listed(self.believed, self.server.xclient_from):
                await self.become(event)
            case Command():
                said = self.put(await self.consult(event))
                if isinstance(event, (Ehlo, Helo)) and said.severity is Severity.COMPLETION:
                    self.session.helo_name = event.name.decode()
                    self.session.extended = isinstance(event, Ehlo)
                if not event.pipelined:
                    await self.flush()
            case _:  # pragma: no cover - content comes only after 354
                raise AssertionError(event)

    async def is_intercepted(self, interceptor: Interceptor, event: ServerEvent) -> bool:
        """Let an interceptor answer in our place; tell whether it did."""
        if not isinstance(event, (Command, BadCommand)):
            return False
        usual = None if isinstance(event, Bdat) else self.connection.suggested_reply()
        reply = await self.ask(
            partial(interceptor.before, self.session, event, usual),
            instead=partial(self.answer_intercepted, event, HANDLER_FAILED),
        )
        if reply is not None:
            await self.answer_intercepted(event, reply)
        return reply is not None

    async def answer_intercepted(self, event: Command | BadCommand, reply: Reply) -> None:
        accepts = getattr(reply, "code", 500) < 400  # handlers return what they like
        if accepts and isinstance(event, MORE_FOLLOWS):
            verb = event.verb.decode()
            log.error("session %d: an interceptor cannot accept %s", self.session.id, verb)
            reply = HANDLER_FAILED
        if isinstance(event, Bdat):
            await self.take_content(reply)
        else:
            self.put_each(repeat(reply))
            await self.flush()

    async def refuse(self, event: BadCommand) -> None:
        """Refuse; what is no command at all, in an interpreter's words if it has some."""
        reply, interpreter = event.reply, self.powers.interpreter
        if interpreter is not None and reply in (UNRECOGNIZED, NOT_IMPLEMENTED):
            asked = partial(interpreter.unknown, self.session, event)
            answer = await self.ask(asked)
            reply = reply if answer is None else answer
        # The last of the chunks behind one that was refused is content's end (RFC 2033 §4.2).
        self.put_each(repeat(reply))
        await self.flush()

    async def consult(self, command: Command) -> Reply | None:
        """Ask the power that a small command is for, if the handler has it."""
        if isinstance(command, XForward):
            listed = is_listed(self.believed, self.server.xforward_from)
            return BELIEVED if listed else None
        power = self.powers.for_command(command)
        return None if power is None else await self.ask(partial(power, self.session, command))

    async def become(self, command: XClient) -> None:
        """Begin anew, with the client that a listed peer says this is."""
        server, session = self.server, self.session
        take_for(session, command)
        self.failed_logins = 0
        self.connection.plaintext_auth = server.plaintext_allowed(session)
        if not server.connections.enter(self, session.peer[0]):
            await self.answer(TOO_MANY_CONNECTIONS)
            return
        reply = await self.welcome() or Reply(220, None, f"{self.connection.hostname} ESMTP")
        said = self.put(reply, failed=NOT_NOW)
        if said.severity is not Severity.COMPLETION and said.code != 421:
            raise HangUp  # refused at the door, and it is a door that has been opened before
        await self.flush()

    async def judge(self, handler: Callable[[], Awaitable[Reply | None]]) -> None:
        reply = await self.ask(handler)
        if isinstance(reply, Reply) and reply.code >= 500:  # handlers return what they like
            await self.slow_down()
        # It may share a write with others, if they are at hand (RFC 2920 §3.2).
        self.put(reply)

    def is_one_too_many(self, event: ServerEvent) -> bool:
        """Count a command; tell whether that is more than a session may have."""
        self.commands += 1
        if not isinstance(event, (Mail, Rcpt, Data, Bdat, BadCommand, Quit)):
            self.idle_commands += 1
        most, most_idle = self.server.max_commands, self.server.max_idle_commands
        return (most is not None and self.commands > most) or (
            most_idle is not None and self.idle_commands > most_idle
        )

    def is_idle_chunk(self, chunk: Bdat) -> bool:
        """Count a chunk that brings next to nothing; tell whether there were too many."""
        return chunk.size < SMALL_CHUNK and not chunk.last and self.is_one_too_many(chunk)

    async def take_content(self, refusal: Reply | None = None) -> None:
        """Hand content over, and answer as that comes out; with a refusal, throw it away."""
        envelope = self.connection.envelope
        assert envelope is not None, "the core refuses DATA and BDAT without recipients"
        self.between_chunks = False
        self.credit = float("inf")
        self.account(0, 0)
        stream = ContentStream(self.pull_content)
        if refusal is not None:
            await self.end_content(envelope, stream, refusal)
            return
        handler, deliverer = self.powers.handler, self.powers.deliverer
        take: Callable[..., Awaitable[Reply | Mapping[Rcpt, Reply | None] | None]]
        take = deliverer.deliver if deliverer and self.connection.lmtp else handler.content
        end = partial(self.end_content, envelope, stream)
        verdict = await self.ask(
            partial(take, self.session, envelope, stream), instead=partial(end, HANDLER_FAILED)
        )
        await end(verdict)

    async def end_content(
        self,
        envelope: Envelope,
        stream: ContentStream,
        verdict: Reply | Mapping[Rcpt, Reply | None] | None,
    ) -> None:
        # Whatever the handler has read, the session goes on behind the true end of the content.
        while stream.end is None:
            with suppress(StopAsyncIteration, ContentError):
                await anext(stream)
            if isinstance(stream.lost, _DroppedError):
                return
            if stream.lost is not None:
                raise stream.lost
        self.idle_commands = 0
        if self.server.trace is not None:
            self.show("C", stream.end)
        if stream.end.fault is not None:
            verdict = stream.end.fault
        if verdict is not None and self.connection.lmtp and isinstance(verdict, Mapping):
            self.put_each(self.outcomes(envelope, verdict))
        else:  # an outcome for each is none where one is for all: `put` says so
            self.put_each(repeat(cast("Reply | None", verdict)))
        await self.flush()

    def outcomes(
        self, envelope: Envelope, verdicts: Mapping[Rcpt, Reply | None]
    ) -> list[Reply | None]:
        """Return the verdict on each recipient; the log says where there is not one for each."""
        missing = [str(r.forward_path) for r in envelope.rcpts if r not in verdicts]
        unknown = [str(r.forward_path) for r in verdicts if r not in envelope.rcpts]
        if missing or unknown:
            wrong = "session %d: a handler has no outcome for %s, and one for %s"
            log.error(wrong, self.session.id, missing, unknown)
        return [verdicts.get(rcpt, HANDLER_FAILED) for rcpt in envelope.rcpts]

    async def start_tls(self) -> None:
        context = self.server.tls_context
        assert context is not None, "neither offered nor implicit without one"
        self.wait("session", None)
        with deadline("tls", self.deadlines.tls):
            await self.pump.start_tls(context, server_side=True, early=self.early)
        self.early = b""
        self.session.tls = self.connection.tls
        self.session.helo_name = ""
        self.session.extended = False
        self.session.identity = None

    async def log_in(self, command: Auth) -> None:
        mechanism = next(m for m in self.powers.mechanisms if m.name == command.mechanism)
        exchange = ServerExchange(mechanism, command.initial_response, self.login_context())
        self.admitted = None
        try:
            with deadline("auth", self.deadlines.auth):
                identity = await self.exchange(exchange)
        except AuthenticationError as error:
            await self.refuse_login(error.reply)
        else:
            if identity is not None:
                await self.tell_guard(success=True)
                self.session.identity = identity
                await self.answer(LOGGED_IN)

    async def admit(self, question: Question) -> None:
        """Let the guard judge an attempt before a secret is looked at."""
        guard = self.server.guard
        if guard is None or not isinstance(question, (Verify, Lookup, VerifyToken)):
            return
        name = question.authorization if isinstance(question, VerifyToken) else question.username
        refusal = await self.ask_about_login(partial(guard.admit, self.session, name))
        if refusal is not None:
            raise AuthenticationError(refusal)
        self.admitted = name

    async def tell_guard(self, *, success: bool | None) -> float:
        """Tell the guard how the attempt ended; return how long a refusal has to wait."""
        guard, name, self.admitted = self.server.guard, self.admitted, None
        if guard is None or name is None:
            return 0
        seconds = await self.ask_about_login(
            partial(guard.ended, self.session, name, success=success)
        )
        return 0 if isinstance(seconds, Reply) else seconds

    def ask_about_login(self, power: Callable[[], Awaitable[T]]) -> Awaitable[T | Reply]:
        """Ask the authenticator or the guard; what goes wrong with it is no fault of the client."""
        instead = partial(self.refuse_login, NO_LOGIN_NOW)
        return self.ask(power, failed=NO_LOGIN_NOW, instead=instead)

    def login_context(self) -> ServerContext:
        bindings, tls = self.server.sasl.bindings, self.connection.tls
        if bindings and tls is not None and tls.unique:
            bindings += (ChannelBinding("tls-unique", tls.unique),)
        return evolve(self.server.sasl, hostname=self.server.hostname, bindings=bindings)

    async def exchange(self, exchange: ServerExchange) -> str | None:
        """Go through a SASL exchange; return who logged in, None if the connection ended."""
        step = exchange.step()
        while not isinstance(step, str):
            if not isinstance(step, Challenge):
                await self.admit(step)
                answer = await self.ask_about_login(
                    partial(self.powers.put_question, self.session, step)
                )
                if isinstance(answer, Reply):  # the authenticator failed, or says so itself
                    raise AuthenticationError(answer)
                step = exchange.step(answer)
                continue
            await self.answer(step.reply())
            event = await self.pull("command", self.deadlines.command)
            self.show("C", event)
            if isinstance(event, BadCommand):
                raise AuthenticationError(event.reply)
            if not isinstance(event, AuthResponse):
                return None
            step = exchange.step(event.data)
        return step

    async def refuse_login(self, reply: Reply) -> None:
        success = None if reply.code == 454 else False  # RFC 4954 §6: it was not found out
        self.failed_logins += 1
        if self.failed_logins >= self.server.max_failed_logins:
            reply = TOO_MANY_LOGINS
        # Guessing costs time (RFC 4954 §9).
        seconds = max(self.server.failed_login_delay, await self.tell_guard(success=success))
        self.wait("session", None)
        await anyio.sleep(seconds)
        await self.answer(reply)

    async def pull_content(self) -> ServerEvent:
        self.hearing = True
        try:
            while True:
                if self.between_chunks:
                    await self.next_chunk()
                event = await self.pull_fast_enough()
                if not isinstance(event, EndOfChunk):
                    return event
                # A handler may give up waiting and read on later: remember where we are.
                self.between_chunks = True
                self.put(event.fault)
        finally:
            self.hearing = False
            self.wait("handler", self.deadlines.handler)

    async def next_chunk(self) -> None:
        """Wait for another BDAT; answer what else is said meanwhile."""
        while self.connection.state is State.CHUNKS:
            event = await self.pull_within("command", self.deadlines.command)
            self.show("C", event)
            if isinstance(event, ConnectionClosed):
                raise StreamLostError("closed between two chunks")
            if isinstance(event, Bdat) and not self.is_idle_chunk(event):
                self.between_chunks = False
                return
            await self.respond(event)
        await self.flush()  # the handler may take its time to tidy up
        raise _DroppedError("the client dropped the transaction between two chunks")


class _DroppedError(StreamLostError):
    """There is no more content for this handler, and yet the session goes on."""
