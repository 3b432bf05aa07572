"""Both ends play random dialogues, legal and illegal, against the model of `model.py`.

Octets travel when the machine says so, as few at a time as it likes; so what the client has asked,
what the server has answered and what the client has heard of it are three different things, and
each of them is checked after every step.
"""

import copy
from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from smtpproto import (
    NEED_DATA,
    PAUSED,
    AuthResponse,
    BadCommand,
    Bdat,
    Chunk,
    ClientConnection,
    Command,
    ConnectionClosed,
    Content,
    Data,
    Ehlo,
    EndOfChunk,
    EndOfContent,
    Envelope,
    Lhlo,
    Limits,
    LocalProtocolError,
    Mail,
    Quit,
    Rcpt,
    RemoteProtocolError,
    Reply,
    Rset,
    Signal,
    StartTls,
    State,
)
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions.xforward import XForward
from smtpproto.testing import strategies as smtp
from smtpproto.testing.strategies import Thing

from .ends import OFFER, make_server
from .model import PIPELINED, Session
from .spoken import (
    BETWEEN,
    COMMANDS,
    CONTENT,
    HELLO,
    LEADING_NOWHERE,
    LOGIN,
    MAIL,
    RCPT,
    UNDUE,
    good,
    name,
    place,
    unfit,
    well,
)

LIMITS = Limits(message=60, recipients=3, bad_commands=10**6)
CODES = [220, 221, 235, 250, 251, 334, 354, 450, 452, 500, 503, 550, 554]
#: With what is answered, where that is legal; 0: well. None: not at all yet.
SOME_CODES = st.one_of(
    st.none(), st.lists(st.sampled_from([*[0] * len(CODES), *CODES]), max_size=8)
)
RARELY = st.sampled_from([False] * 9 + [True])
TRUNCATED = st.one_of(st.none(), st.integers(1, 40))  # octets; None: all that there are


class Dialogue(RuleBasedStateMachine):
    """A client, a server, what is on its way between them, and what the model says of each."""

    @initialize(
        lmtp=st.booleans(),
        tls=st.sampled_from([False, False, False, True]),
        greeted=st.sampled_from([False, True, True, True]),
    )
    def connect(self, lmtp: bool, tls: bool, greeted: bool) -> None:
        self.server = make_server(limits=LIMITS, lmtp=lmtp)
        self.client = ClientConnection(OFFER, lmtp=lmtp, any_octets=True)
        #: By what the server has answered, and by what the client has heard of that.
        self.told, self.heard = Session(lmtp, tls=tls), Session(lmtp, tls=tls)
        if tls:
            self.server.tls_started()
            self.client.tls_started()
        self.up = self.down = b""
        #: What the client sent: not answered as far as it knows; not pulled by the server yet.
        self.owed: deque[Thing | None] = deque([None])
        self.coming: deque[Thing] = deque()
        self.said: deque[Reply] = deque()
        #: What the server owes an answer to; how often; whether it has to be a refusal.
        self.asking: Thing | None = None
        self.left, self.only_refuse = 1, False
        self.left_to_hear = 0
        self.read = b""
        self.octets = 0
        if greeted:
            self.settle()
            self.say(Lhlo("c.example") if lmtp else Ehlo("c.example"))
            self.settle()

    # The client speaks

    def optimist(self) -> Session:
        """Where the session will be if all that is owed succeeds."""
        session = copy.deepcopy(self.heard)
        for thing in self.owed:
            if session.allows(name(thing)):
                session.answer(name(thing), good(name(thing)), thing)
        return session

    def may_send(self, thing: Thing) -> bool:
        here = self.optimist()
        if not self.owed and self.client.buffered:
            return False  # nothing that has come already can be an answer
        if isinstance(thing, (Content, EndOfContent)):
            return self.heard.dotted and not self.owed and not self.heard.closed
        if here.uncertain and not isinstance(thing, (Rset, Quit)):
            return False
        extended = self.heard.hello in ("EHLO", "LHLO")
        if self.owed and not (extended and name(self.owed[-1]) in PIPELINED):
            return False
        if isinstance(thing, Chunk) and not all(isinstance(each, Chunk) for each in self.owed):
            return False  # RFC 3030 §2: who takes it has to be known first
        if isinstance(thing, (Mail, Rcpt)) and thing.parameters and not extended:
            return False
        asked = name(thing)
        return here.allows(asked) and self.heard.offers(asked) and not unfit(here, thing)

    @rule(thing=st.sampled_from(COMMANDS))
    def say(self, thing: Thing) -> None:
        self.sends(thing)

    def sends(self, thing: Thing) -> bool:
        """Let the client send it, if it may; tell whether it did."""
        legal = self.may_send(thing)
        event(f"{name(thing)}: {'sent' if legal else 'not sent'}")
        if not legal:
            with pytest.raises(LocalProtocolError):
                self.client.send(thing)
            return False
        self.up += self.client.send(thing)
        self.coming.append(thing)
        if not isinstance(thing, Content):
            self.owed.append(thing)
        return True

    @rule(kind=st.integers(0, 99), which=st.integers(0, 99), codes=SOME_CODES)
    def say_what_is_due(self, kind: int, which: int, codes: Sequence[int] | None) -> None:
        due: dict[str, list[Thing]] = {}
        for thing in [*COMMANDS, *CONTENT]:
            if self.may_send(thing):
                kind_of_it = next((kind for kind in LEADING_NOWHERE if thing in kind), None)
                due.setdefault(str(kind_of_it) if kind_of_it else name(thing), []).append(thing)
        if due:
            several = [*due.values()][kind % len(due)]
            self.say(several[which % len(several)])
        self.settle(codes)

    @rule(
        head=st.tuples(
            st.sampled_from(MAIL), st.lists(st.sampled_from(RCPT), min_size=1, max_size=4)
        ),
        last=st.sampled_from([Data(), Data(), Data(), Rset(), *HELLO[1:], None, None, None]),
        body=st.lists(
            st.builds(Chunk, smtp.clean_content(), st.booleans()), min_size=1, max_size=3
        ),
        codes=SOME_CODES,
        verdicts=st.lists(st.sampled_from([0, 0, 452, 554]), max_size=4),
    )
    def transaction(
        self,
        head: tuple[Mail, list[Rcpt]],
        last: Command | None,
        body: list[Chunk],
        codes: Sequence[int] | None,
        verdicts: Sequence[int],
    ) -> None:
        """Pipelined as far as it may be, and more than that."""
        refused = [t for t in [head[0], *head[1], *([last] if last else [])] if not self.sends(t)]
        self.settle(codes)
        for thing in refused:
            self.intrude(thing)
        for chunk in body:
            self.say(Content(chunk.data) if self.heard.dotted else chunk)
        self.say(EndOfContent())
        self.settle(verdicts)

    @rule(codes=st.lists(st.sampled_from([235, 334, 454, 535]), min_size=1, max_size=3))
    def log_in(self, codes: list[int]) -> None:
        self.say(LOGIN[0])
        self.settle()
        for code in codes:
            self.say(AuthResponse(b"x"))
            self.settle([code])

    @rule(several=st.lists(st.sampled_from([*BETWEEN, StartTls()]), min_size=2, max_size=4))
    def between_transactions(self, several: list[Command]) -> None:
        for command in several:
            self.say(command)
            self.settle()

    @rule(data=smtp.clean_content(), ends=st.booleans())
    def content(self, data: bytes, ends: bool) -> None:
        self.say(Content(data))
        if ends:
            self.say(EndOfContent())

    @rule(data=smtp.clean_content(), last=st.booleans())
    def chunk(self, data: bytes, last: bool) -> None:
        self.say(Chunk(data, last))

    @rule(now=RARELY)
    def leave(self, now: bool) -> None:
        if now:
            self.say(Quit())

    # Octets travel

    @rule(octets=TRUNCATED)
    def go_up(self, octets: int | None) -> None:
        piece = self.up[:octets]
        self.up = self.up[len(piece) :]
        if piece:
            self.server.receive_data(piece)
            self.pull()

    @rule(octets=TRUNCATED)
    def go_down(self, octets: int | None) -> None:
        piece = self.down[:octets]
        self.down = self.down[len(piece) :]
        if piece:
            self.client.receive_data(piece)
        while not isinstance(found := self.client.next_event(), Signal):
            if isinstance(found, ConnectionClosed):
                assert self.heard.closed
                return
            self.hear(found)

    # The server hears and speaks

    def pull(self) -> None:
        while not isinstance(found := self.server.next_event(), Signal):
            if isinstance(found, ConnectionClosed):
                assert self.told.closed
                return
            self.judge(found)
        assert (found is PAUSED) is (self.left > 0 or self.told.handshake)

    def judge(self, found: ServerEvent) -> None:
        """What the server pulled is what the client sent, and refused where it has to be."""
        assert self.left == 0, "while a reply is owed, nothing is pulled"
        if isinstance(found, Content):
            self.read += found.data
            return
        fault = False
        if isinstance(found, (EndOfChunk, EndOfContent)):
            thing = self.whole_content()
            self.octets += len(self.read)
            fault = self.octets > (LIMITS.message or 0)
            assert (found.fault is not None) is fault
            wanted = self.octets if isinstance(found, EndOfContent) else len(self.read)
            assert found.octets == wanted
            self.read = b""
        else:
            thing = self.coming[0]
            command = found.command if isinstance(found, BadCommand) else found
            if isinstance(command, Bdat):
                assert isinstance(thing, Chunk)
                assert command == Bdat(len(thing.data), thing.last)
            else:
                assert command == thing
            if isinstance(found, Bdat):
                assert self.told.allows(name(thing))
                if not self.told.chunks:
                    self.octets = 0
                return  # its octets come first
            assert isinstance(found, BadCommand) is self.has_to_refuse(thing)
            self.coming.popleft()
            fault = isinstance(found, BadCommand)
            if isinstance(thing, Data):
                self.octets = 0
        self.asking, self.only_refuse = thing, fault
        self.left = self.told.replies(name(thing))
        event(f"{name(thing)}: {'bad' if fault else 'fine'}")

    def whole_content(self) -> Thing:
        """Take off what was sent as one piece of content; it was read as it was sent."""
        sent = b""
        while isinstance(piece := self.coming.popleft(), Content):
            sent += piece.data
        if isinstance(piece, Chunk):
            sent = piece.data
        elif sent and not sent.endswith(b"\r\n"):
            sent += b"\r\n"
        seen = self.octets + len(sent)
        if seen <= (LIMITS.message or 0):
            assert self.read == sent
        else:  # what is too much is swallowed
            assert sent.startswith(self.read)
            self.read = sent
        return piece

    def has_to_refuse(self, thing: Thing) -> bool:
        full = isinstance(thing, Rcpt) and len(self.told.recipients) >= LIMITS.recipients
        idle = isinstance(thing, Data) and not self.told.recipients
        return full or idle or unfit(self.told, thing) or not self.told.allows(name(thing))

    @rule(usual=st.booleans(), code=st.sampled_from(CODES))
    def answer(self, usual: bool, code: int) -> None:
        self.go_up(None)
        if not self.left:
            with pytest.raises(LocalProtocolError):
                self.server.send(Reply(code))
            return
        asked, suggested = name(self.asking), self.server.suggested_reply()
        reply = suggested if usual else Reply(code, None, "" if code == 334 else "so it is")
        if asked in ("EHLO", "LHLO") and reply.code < 400:
            reply = suggested  # nothing else announces what is offered
        refused = self.only_refuse or asked == "cancel"
        if usual and not refused and suggested.code >= 400:
            reply = well(self.asking)  # it is not for the core to let somebody in
        permitted = self.told.permits(asked, reply.code)
        if not permitted or (self.only_refuse and reply.code < 400):
            event(f"{asked}: {reply.code} is not sent")
            with pytest.raises(LocalProtocolError):
                self.server.send(reply)
            return
        self.send(reply)

    @rule(now=RARELY)
    def shut_down(self, now: bool) -> None:
        """421 may be said at any time but within a handshake, asked or not (§3.8)."""
        if not now:
            return
        if self.told.closed or self.told.handshake:
            with pytest.raises(LocalProtocolError):
                self.server.send(Reply(421))
        else:
            self.send(Reply(421, None, "Bye"))

    def send(self, reply: Reply) -> None:
        self.down += self.server.send(reply)
        self.said.append(reply)
        self.left = 0 if reply.code == 421 else self.left - 1
        if not self.left:
            self.told.answer(name(self.asking), reply.code, self.asking)
            self.asking = None
        self.pull()

    def hear(self, reply: Reply) -> None:
        """What the client hears is what the server said, and answers what it sent first."""
        said = self.said.popleft()
        assert (reply.code, reply.lines) == (said.code, said.lines)
        if not self.owed:
            assert reply.code == 421
            self.heard.closed = True
            return
        asked = name(self.owed[0])
        self.left_to_hear = (self.left_to_hear or self.heard.replies(asked)) - 1
        if not self.left_to_hear or reply.code == 421:
            self.heard.answer(asked, reply.code, self.owed.popleft())
            self.left_to_hear = 0

    # TLS, and those who do not keep to the rules

    @precondition(lambda self: self.told.handshake and self.heard.handshake)
    @rule(injected=st.sampled_from([b"", b"MAIL FROM:<evil@x.example>\r\n", b"\0"]))
    def shake_hands(self, injected: bytes) -> None:
        """What came in clear behind STARTTLS is never heard (RFC 3207 §4.2)."""
        assert self.server.next_event() is PAUSED
        assert self.client.next_event() is PAUSED
        if injected:
            self.server.receive_data(injected)
            listener = copy.deepcopy(self.client)
            listener.receive_data(injected)
            with pytest.raises(RemoteProtocolError):
                listener.next_event()
        for end in (self.server, self.client):
            end.tls_started()
        assert self.server.next_event() is NEED_DATA
        self.told.shake_hands()
        self.heard.shake_hands()

    def nothing_said(self) -> bool:
        silent = not (self.left or self.up or self.coming or self.server.buffered)
        special = self.told.exchange or self.told.dotted or self.told.handshake
        return silent and not special and not self.told.closed

    @rule(line=st.one_of(smtp.bad_lines(600), st.sampled_from([*COMMANDS, *UNDUE])))
    def intrude(self, line: bytes | Thing) -> None:
        """Somebody says to the server what is not due: it is refused, and moves nothing."""
        if not self.nothing_said():
            return
        if isinstance(line, bytes):
            octets = line + b"\r\n"
        else:
            # Refused or not, the last chunk ends a transaction.
            ends = name(line) == "BDAT LAST" and self.told.sender is not None
            if ends or not self.has_to_refuse(line):
                return
            octets = smtp.octets_of([[line]])
        event(f"{octets[:8]!r} is not due")
        self.server.receive_data(octets)
        found = self.server.next_event()
        assert isinstance(found, BadCommand)
        for code in (250, 354):
            with pytest.raises(LocalProtocolError):
                self.server.send(Reply(code))
        refusal = self.server.send(self.server.suggested_reply())
        assert refusal[:1] in b"45"
        assert self.server.next_event() is NEED_DATA

    @precondition(lambda self: not (self.down or self.client.buffered))
    @rule(code=st.sampled_from([*CODES, 421]))
    def mislead(self, code: int) -> None:
        """A server that answers as it may not has lost its client, and the others have not."""
        client = copy.deepcopy(self.client)
        asked = name(self.owed[0]) if self.owed else ""
        believed = self.heard.believes(asked, code) if asked else code == 421
        if self.heard.lmtp and asked == "DATA" and code < 400 and not self.heard.recipients:
            believed = False  # RFC 2033 §4.2: it has to be refused
        if self.heard.closed or self.heard.handshake:
            return
        client.receive_data(b"%d so\r\n" % code)
        if believed:
            assert client.next_event() == Reply(code, None, "so")
        else:
            with pytest.raises(RemoteProtocolError):
                client.next_event()
            assert client.state is State.CLOSED

    # Agreement

    @rule(codes=SOME_CODES)
    def settle(self, codes: Sequence[int] | None = ()) -> None:
        """All arrives and is answered, with these codes first: then both ends know the same."""
        if codes is None:
            return
        rest = iter(codes)
        for _ in range(100):
            if not (self.up or self.down or self.left):
                break
            self.go_up(None)
            if self.left:
                code = next(rest, 0)
                self.answer(usual=not code, code=code)
            self.go_down(None)
            if self.told.closed:
                self.up = b""
        else:
            raise AssertionError("it does not come to rest")
        if not self.told.closed:
            assert self.told == self.heard
            assert not self.owed
            assert not self.said
            if self.told.hello in ("EHLO", "LHLO"):
                assert self.client.offered == self.server.offered

    @invariant()
    def each_end_is_where_the_model_says(self) -> None:
        told, heard = self.told, self.heard
        assert self.server.state is place(told)
        assert self.client.state is place(heard)
        assert self.client.asked is place(self.optimist())
        assert self.server.authenticated is told.user
        assert self.client.authenticated is heard.user
        assert (self.server.tls is not None) is told.tls
        assert (self.client.tls is not None) is heard.tls
        assert self.client.owed == len(self.owed)
        if told.closed:
            assert self.server.envelope is None
            return
        assert (self.server.preamble(XForward) is not None) is told.forwarded
        assert self.server.extended is (told.hello in ("EHLO", "LHLO"))
        assert self.server.replies_owed == self.left
        assert self.server.envelope == envelope(told)
        if not heard.closed:
            assert (self.client.offered != {}) is (heard.hello in ("EHLO", "LHLO"))

    def teardown(self) -> None:
        """The end of the file is the end, wherever it comes."""
        if not hasattr(self, "server"):
            return
        self.settle()
        for end in (self.server, self.client):
            end.receive_data(b"")
            assert end.next_event() == ConnectionClosed()
            assert end.state is State.CLOSED


def envelope(session: Session) -> Envelope | None:
    mail, rcpts = session.sender, [r for r in session.recipients if isinstance(r, Rcpt)]
    return Envelope(mail, rcpts) if isinstance(mail, Mail) and rcpts else None


TestDialogue = Dialogue.TestCase
_USUAL = settings()
TestDialogue.settings = settings(
    _USUAL, max_examples=2 * _USUAL.max_examples, stateful_step_count=40
)
