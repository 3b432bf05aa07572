"""Walks through all that a real server can come to, breadth first, and holds it to the clauses.

A configuration is what somebody at the wire knows of a session (`Past`), what is public of the
server (`View`), and its `image`: all that it holds, so that nothing that is hidden now and does
harm later is passed over. The clauses speak of the first two alone. Where these look alike, a
step is judged once for each thing that it comes to.

What a client says when it has waited for a reply, it says once more without waiting: behind each
command, each class of reply to it, and wherever that leads, it has to come to the same.
"""

from collections import Counter, deque
from collections.abc import Iterator
from typing import TypeAlias

from attrs import define, field, frozen

from smtpproto import (
    PAUSED,
    Content,
    EndOfChunk,
    EndOfContent,
    Reply,
    ServerConnection,
    Signal,
    State,
)
from smtpproto.core.server_connection import ServerEvent

from .clauses import Clause, forbidding
from .connections import Act, answers, beginning, do, fork, image, make_server, pull, view
from .kept import KEPT, Step, View
from .session import Past, Setting
from .words import to_say

__all__ = ["MAX_VIOLATIONS", "Exploration", "Node", "Violation", "explore", "replay"]

MAX_CONFIGURATIONS = 20_000  # more than that, and something grows without end
MAX_VIOLATIONS = 20

#: Of a session that is over it does not matter what it was.
NOWHERE = View(State.CLOSED)

#: What a configuration looks like.
Look: TypeAlias = tuple[Past, View]
#: Whether it was refused; what was pulled, why that stopped; what it looks like behind it.
Outcome: TypeAlias = tuple[bool, tuple[object, ...], Signal | None, Reply | None, Look]


@define(eq=False)
class Node:
    """A configuration: a server that stands there, and how it came there."""

    server: ServerConnection
    past: Past
    view: View
    parent: "Node | None" = None
    act: Act | None = None

    @property
    def look(self) -> Look:
        return self.past, self.view

    def way(self) -> list[Act]:
        """Return the steps that led here."""
        before = self.parent.way() if self.parent is not None else []
        return [*before, self.act] if self.act is not None else before


@frozen
class Violation:
    """A clause that a step broke, and the shortest way to it."""

    clause: str
    setting: str
    way: tuple[str, ...]

    def __str__(self) -> str:
        return "\n  ".join([f"{self.clause} [{self.setting}]", *self.way])


@define
class Exploration:
    """What was found."""

    setting: Setting
    #: The first of those that look alike.
    nodes: dict[Look, Node] = field(factory=dict)
    #: How many there are in all; replies that were tried, other steps, steps without waiting.
    configurations: int = 0
    answered: int = 0
    done: int = 0
    pipelined: int = 0
    #: How often a clause forbade a reply, and how often one had something to say of a step.
    objected: Counter[Clause] = field(factory=Counter)
    held: Counter[Clause] = field(factory=Counter)
    #: State, what was asked, digit of the reply, next state.
    moves: set[tuple[State, str, int, State]] = field(factory=set)
    #: State, what happened, next state: without a reply.
    silent: set[tuple[State, str, State]] = field(factory=set)
    violations: list[Violation] = field(factory=list)

    def object(self, clause: str, node: Node, *acts: Act) -> None:
        """Note that a clause was broken."""
        way = tuple(map(str, (*node.way(), *acts)))
        self.violations.append(Violation(clause, self.setting.name, way))


def explore(setting: Setting) -> Exploration:
    """Walk through all that a server so made can come to."""
    found = Exploration(setting)
    server, new = make_server(setting), make_server(setting)
    first = Node(server, beginning(setting), view(server))
    seen: set[object] = {(first.look, image(server, new))}
    judged: dict[tuple[Look, Act], set[Outcome]] = {}
    pipelined: set[object] = set()
    queue = deque([first])
    while queue and len(found.violations) < MAX_VIOLATIONS:
        node = queue.popleft()
        found.configurations += 1
        found.nodes.setdefault(node.look, node)
        for act in acts(setting, node):
            step, server = perform(setting, node, act)
            outcome = come_to(step)
            before = judged.setdefault((node.look, act), set())
            if outcome not in before:
                judge(found, node, act, step)
                before.add(outcome)
            how = (step.answers, step.digit, step.now.state)
            if step.answers and step.after.listens != "reply" and how not in pipelined:
                pipelined.add(how)
                pipeline(found, node, act, Node(server, step.after, step.now, node, act))
            look = outcome[-1]
            key = look if step.after.over else (look, image(server, new))
            if key not in seen and not step.refused:
                seen.add(key)
                queue.append(Node(server, step.after, step.now, node, act))
        if found.configurations > MAX_CONFIGURATIONS:
            found.object("The configurations have an end", node)
            break
    return found


def acts(setting: Setting, node: Node) -> Iterator[Act]:
    """Give all that is tried where a session stands."""
    listens = node.past.listens
    if listens != "reply":
        for said in to_say(setting, listens):
            yield Act(said=said)
        yield Act()
    for answer in answers(node.past, node.server):
        yield Act(answer=answer)
    yield Act(in_clear=b"")
    if listens == "tls":
        yield Act(in_clear=b"EHLO evil.example\r\nMAIL FROM:<a@b>\r\n")


def perform(setting: Setting, node: Node, act: Act) -> tuple[Step, ServerConnection]:
    """Do it on a fork; return what came of it, and the fork."""
    server = fork(node.server)
    step = Step(setting, node.past, node.view, node.past, node.view)
    do(step, server, act)
    return step, server


def judge(found: Exploration, node: Node, act: Act, step: Step) -> None:
    """Ask every clause."""
    if act.answer is not None:
        found.answered += 1
        clauses = forbidding(step.setting, node.past, act.answer)
        found.objected.update(clauses)
        if step.refused and not clauses:
            found.object("What is refused, some clause forbids", node, act)
        elif clauses and not step.refused:
            found.object(str(clauses[0]), node, act)
        if step.answers and node.past.owed == 1:
            # Where it is no command, BDAT is a line like any other.
            known = step.answers != "BDAT" or node.past.takes_chunks
            verb = step.answers if known else ""
            found.moves.add((step.was.state, verb, step.digit, step.now.state))
    else:
        found.done += 1
        if step.was.state is not step.now.state:
            found.silent.add((step.was.state, silently(step), step.now.state))
    for clause, holds in KEPT.items():
        so = holds(step)
        if so is not None:
            found.held[clause] += 1
            if not so:
                found.object(str(clause), node, act)


def silently(step: Step) -> str:
    """Tell by what the state changed without a reply."""
    if step.handshake:
        return "handshake"
    if step.eof:
        return "end of file"
    return "lost framing" if step.lost else "last chunk for nobody (LMTP)"


def come_to(step: Step) -> Outcome:
    """Return what a step came to."""
    where = (step.after, NOWHERE if step.after.over else step.now)
    return step.refused, shapes(step.events), step.signal, step.lost, where


def shapes(events: tuple[ServerEvent, ...]) -> tuple[object, ...]:
    """Leave out what content there was, and how much: how it was cut means nothing."""
    return tuple(
        (type(event), event.fault) if isinstance(event, (EndOfContent, EndOfChunk)) else event
        for event in events
        if not isinstance(event, Content)
    )


def pipeline(found: Exploration, node: Node, act: Act, behind: Node) -> None:
    """Let the client speak while the server still owes the answer that leads `behind`."""
    assert act.answer is not None
    for said in to_say(found.setting, behind.past.listens):
        found.pipelined += 1
        server = fork(node.server)
        server.receive_data(said.octets)
        step = Step(found.setting, node.past, node.view, behind.past.heard(said), node.view)
        deaf = server.next_event() is PAUSED
        server.send(act.answer.reply)
        pull(step, server)
        step.now = view(server)
        waiting, _ = perform(found.setting, behind, Act(said))
        if not deaf or come_to(step) != come_to(waiting):
            found.object("Whether a client waits or not comes to the same", node, act, Act(said))


def replay(node: Node, setting: Setting) -> View:
    """Lead a new server the whole way, and look at it: what no fork has touched."""
    server = make_server(setting)
    past = beginning(setting)
    for act in node.way():
        step = Step(setting, past, node.view, past, node.view)
        do(step, server, act)
        past = step.after
    return view(server)
