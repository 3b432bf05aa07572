"""What became of a message at the next hop, recipient by recipient; and the client's errors.

::

    ClientError
    ├── ConnectError     no session: unreachable, broken, silent for too long, not SMTP
    │   └── HeldOffError … and so lately that a pool does not try again yet
    ├── TlsError         TLS was required and could not be had, or the certificate is wrong
    ├── RefusedError     the server answered a step of the opening with 4yz or 5yz
    │   └── LoginError   … to the login
    └── DeliveryError    not every recipient was accepted; carries the Result
"""

from __future__ import annotations

import enum

from attrs import evolve, frozen

from .core.envelope import Envelope
from .core.path import ForwardPath
from .core.reply import Reply, Severity

__all__ = [
    "ClientError",
    "ConnectError",
    "DeliveryError",
    "Fate",
    "HeldOffError",
    "LoginError",
    "Outcome",
    "RefusedError",
    "Result",
    "TlsError",
    "Transaction",
]


class Fate(enum.Enum):
    """What may have happened to one recipient."""

    ACCEPTED = "accepted"  #: the server has taken over responsibility
    TRANSIENT = "transient"  #: not now; trying again is sensible
    PERMANENT = "permanent"  #: not at all; trying again is not
    UNKNOWN = "unknown"  #: the final dot went out and no reply came in (RFC 1047)

    @classmethod
    def of(cls, reply: Reply) -> Fate:
        """Return what a reply to RCPT, DATA or the final dot means; 3yz means nothing yet."""
        return _FATES[reply.severity]


_FATES = {
    Severity.COMPLETION: Fate.ACCEPTED,
    Severity.INTERMEDIATE: Fate.TRANSIENT,
    Severity.TRANSIENT: Fate.TRANSIENT,
    Severity.PERMANENT: Fate.PERMANENT,
}


@frozen
class Outcome:
    """One recipient's fate, the reply that decided it, and else the reason in words.

    `local` says that the reply is the client's own: the server would have had to refuse, by what
    it offers, and was not asked.
    """

    forward_path: ForwardPath
    fate: Fate
    reply: Reply | None = None
    reason: str = ""
    local: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the server has taken the message for this recipient."""
        return self.fate is Fate.ACCEPTED

    def __str__(self) -> str:
        return f"{self.forward_path} {self.fate.value}: {self.reply or self.reason}"


@frozen
class Result:
    """The outcomes of one transaction, in the order of the envelope's recipients.

    It is true where all were accepted: `if not result` overlooks nobody. `unheard` says that the
    session was over before the server answered anything: lost, or ended by a 421 that came first,
    as one does that was idle for too long. Nothing was begun, and another session may have it.
    `left_out` are the keywords of parameters that the server did not offer to take, and that the
    caller had declared dispensable.
    """

    outcomes: tuple[Outcome, ...]
    unheard: bool = False
    left_out: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return self.all_accepted

    @property
    def all_accepted(self) -> bool:
        """Whether every recipient was accepted."""
        accepted = Fate.ACCEPTED
        return all(outcome.fate is accepted for outcome in self.outcomes)

    @property
    def any_accepted(self) -> bool:
        """Whether at least one recipient was accepted."""
        return any(outcome.accepted for outcome in self.outcomes)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The outcomes of those who were not accepted, for whatever reason."""
        return tuple(outcome for outcome in self.outcomes if not outcome.accepted)

    def again(self, envelope: Envelope) -> Envelope | None:
        """Return an envelope for those for whom trying again is sensible; None if there are none.

        `envelope` is the one that this became of. They are the TRANSIENT ones, with their
        parameters; those who are UNKNOWN may have the message, and are not among them (RFC 1047).
        """
        pairs = zip(envelope.rcpts, self.outcomes, strict=True)
        rcpts = [rcpt for rcpt, outcome in pairs if outcome.fate is Fate.TRANSIENT]
        return evolve(envelope, rcpts=rcpts) if rcpts else None

    def __str__(self) -> str:
        return "\n".join(map(str, self.outcomes))


class Transaction:
    """Collects the outcomes of one message's recipients; each is decided once."""

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        #: The end of the content is on its way, so the server may have accepted it.
        self.end_sent = False
        #: It came to its end before the server answered anything.
        self.unheard = False
        self._outcomes: list[Outcome | None] = [None] * len(envelope.rcpts)

    @property
    def open(self) -> bool:
        """Whether some recipient's fate hangs on what comes next."""
        return None in self._outcomes

    def is_open(self, number: int) -> bool:
        """Tell whether this recipient's fate hangs on what comes next."""
        return self._outcomes[number] is None

    def heard(self, number: int, reply: Reply, *, local: bool = False) -> None:
        """Take the reply to a RCPT: a good one decides nothing yet."""
        if reply.severity is not Severity.COMPLETION:
            # 552 once meant "too many recipients", which passes (RFC 5321 §4.5.3.1.10);
            # with another status it means that (RFC 1870 §6.4).
            passes = reply.code == 552 and str(reply.status or "5.5.3") == "5.5.3"
            self.decide(number, reply, Fate.TRANSIENT if passes else None, local=local)

    def decide(
        self, number: int, reply: Reply, fate: Fate | None = None, *, local: bool = False
    ) -> None:
        """Decide this recipient by a reply, unless that was done before."""
        if self._outcomes[number] is None:
            path = self.envelope.rcpts[number].forward_path
            self._outcomes[number] = Outcome(path, fate or Fate.of(reply), reply, local=local)

    def settle(self, reply: Reply, *, local: bool = False) -> None:
        """Decide all that are open by one reply."""
        fate = Fate.of(reply)
        for number, rcpt in enumerate(self.envelope.rcpts):
            if self._outcomes[number] is None:
                self._outcomes[number] = Outcome(rcpt.forward_path, fate, reply, "", local)

    def lose(self, reason: str) -> None:
        """Decide all that are open: the session was lost."""
        fate = Fate.UNKNOWN if self.end_sent else Fate.TRANSIENT
        for number, outcome in enumerate(self._outcomes):
            if outcome is None:
                path = self.envelope.rcpts[number].forward_path
                self._outcomes[number] = Outcome(path, fate, reason=reason)

    def result(self) -> Result:
        """Return what became of each; all have to be decided."""
        outcomes = tuple(outcome for outcome in self._outcomes if outcome is not None)
        return Result(outcomes, self.unheard)


class ClientError(Exception):
    """Root of what the client raises for what others did."""


class ConnectError(ClientError):
    """There is no session: the server cannot be reached, or followed, or is silent."""


class HeldOffError(ConnectError):
    """A pool did not try to reach a destination, for it could not a moment ago.

    `error` is how the last of `failures` attempts in a row failed; `seconds`, from when this was
    raised, is when the pool tries again.
    """

    def __init__(self, error: ClientError, failures: int, seconds: float) -> None:
        times = "the last attempt" if failures == 1 else f"the last {failures} attempts"
        super().__init__(f"not tried for another {seconds:.3g} s, as {times} failed: {error}")
        self.error = error
        self.failures = failures
        self.seconds = seconds


class TlsError(ClientError):
    """TLS was required and could not be had, or the certificate does not fit."""


class RefusedError(ClientError):
    """The server answered a step of the opening with a refusal."""

    def __init__(self, step: str, reply: Reply) -> None:
        super().__init__(f"{step} was refused: {reply}")
        self.step = step
        self.reply = reply


class LoginError(RefusedError):
    """The server refused the login."""


class DeliveryError(ClientError):
    """Not every recipient was accepted. `result` says what became of each."""

    def __init__(self, result: Result) -> None:
        super().__init__("\n".join(map(str, result.failed)))
        self.result = result
