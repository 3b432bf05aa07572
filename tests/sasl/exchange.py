"""Both sides of a mechanism joined, and a caller that answers the server's questions."""

import hashlib
from collections.abc import Callable

from attrs import field, frozen

from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.sasl import (
    Answer,
    Authorize,
    Challenge,
    ClientExchange,
    Credentials,
    Lookup,
    Mechanism,
    Question,
    ServerContext,
    ServerExchange,
    TokenRefusal,
    Verify,
    VerifyAnonymous,
    VerifyExternal,
    VerifyToken,
)
from smtpproto.mechanisms import CRAM_MD5, STANDARD
from smtpproto.mechanisms.saslprep import saslprep
from smtpproto.mechanisms.scram import derive_keys

ALL = (*STANDARD, CRAM_MD5)
#: Few, so that tests are quick; a client has to be told to put up with it.
FEW = 2


@frozen
class Account:
    """One user: all that a server knows of anybody."""

    username: str
    password: str
    token: str = "token"
    may_act_as: str = ""
    log: list[Question] = field(factory=list, eq=False)

    def __call__(self, question: Question) -> Answer:
        self.log.append(question)
        match question:
            case Verify():
                name, password = saslprep(self.username), saslprep(self.password)
                right = (question.username, question.password) == (name, password)
                return right and question.authorization in ("", name, self.may_act_as)
            case Lookup():
                if question.username != saslprep(self.username):
                    return None
                if question.mechanism == "CRAM-MD5":
                    return self.password.encode()
                salt = hashlib.sha256(self.username.encode()).digest()[:16]
                return derive_keys(
                    self.password, salt, iterations=FEW, mechanism=question.mechanism
                )
            case Authorize():
                return question.authorization == self.may_act_as
            case VerifyToken():
                return self.username if question.token == self.token else TokenRefusal(scope="mail")
            case VerifyExternal():
                return self.username if question.authorization in ("", self.username) else None
            case VerifyAnonymous():
                return "guest"
            case _:
                raise AssertionError(question)


def join(
    mechanism: Mechanism,
    credentials: Credentials,
    answer: Callable[[Question], Answer],
    context: ServerContext | None = None,
    *,
    at_once: bool = True,
) -> str:
    """Run an exchange to its end; return who is logged in, by both sides' account.

    Raises what either side raises. `at_once` says to send the initial response with AUTH.
    """
    client = ClientExchange(mechanism, credentials)
    initial = client.initial_response()
    pending = None if at_once else initial
    server = ServerExchange(mechanism, initial if at_once else None, context)
    step = server.step()
    while not isinstance(step, str):
        if not isinstance(step, Challenge):
            step = server.step(answer(step))
            continue
        response, pending = (pending or client.respond(step.data)), None
        if response is None:
            raise LocalProtocolError("the client has nothing to say")
        step = server.step(response)
    client.succeed()
    return step
