"""Arbitrary octets from either side: each exchange ends in its own error, and in nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.core.sasl import (
    AuthenticationError,
    Challenge,
    ChannelBinding,
    ClientExchange,
    Credentials,
    ExchangeError,
    Mechanism,
    ServerContext,
    ServerExchange,
)
from smtpproto.mechanisms import STANDARD, strongest
from smtpproto.mechanisms.oauth import read_refusal

from .exchange import ALL, FEW, Account

BINDING = ChannelBinding("tls-unique", b"finished")
CONTEXT = ServerContext("mx.example", (BINDING,), nonce=lambda: "s", iterations=FEW)
ACCOUNT = Account("ann", "pw")

#: Octets that come near to what is expected.
near = st.lists(
    st.sampled_from(
        [
            b"n", b"y", b"p=", b"tls-unique", b",", b",,", b"a=", b"n=ann", b"r=c", b"r=cs", b"\0",
            b"\1", b"\1\1", b"auth=Bearer ", b"auth=", b"token", b"user=", b"ann", b"pw", b"=",
            b" ",
            b"=2C", b"c=biws", b"s=QQ==", b"i=4096", b"i=99999999999", b"v=", b"e=x", b"QQ==",
            b"m=1",
            b"host=h", b"port=1", b"\xff", "ﬀ".encode(), b"{}", b"0" * 32,
        ]
    ),
    max_size=12,
).map(b"".join)  # fmt: skip
octets = st.one_of(st.binary(max_size=60), near)


@pytest.mark.parametrize("mechanism", ALL, ids=lambda m: m.name)
@given(initial=st.none() | octets, responses=st.lists(octets | st.none(), max_size=4))
def test_a_hostile_client(
    mechanism: Mechanism, initial: bytes | None, responses: list[bytes | None]
) -> None:
    server = ServerExchange(mechanism, initial, CONTEXT)
    rest = iter(responses)
    refused: int | None = None
    try:
        step = server.step()
        while not isinstance(step, str):
            step = server.step(next(rest, None) if isinstance(step, Challenge) else ACCOUNT(step))
    except AuthenticationError as error:
        refused = error.reply.code
    else:
        # Nobody gets in by chance but where anybody may, or with what these octets do contain.
        assert step in ("ann", "guest")
    assert refused in (None, 501, 535)


@pytest.mark.parametrize("mechanism", ALL, ids=lambda m: m.name)
@given(challenges=st.lists(octets, max_size=4))
def test_a_hostile_server(mechanism: Mechanism, challenges: list[bytes]) -> None:
    client = ClientExchange(
        mechanism,
        Credentials(
            "ann", "pw", token="t", external=True, trace="", binding=BINDING, nonce=lambda: "c"
        ),
    )
    client.initial_response()
    try:
        for challenge in challenges:
            if client.respond(challenge) is None:
                break
        client.succeed()
    except ExchangeError as error:
        said = str(error)
    else:
        said = ""
        assert not mechanism.name.startswith("SCRAM"), "it has proved nothing"
    assert not said or said.isprintable()


@given(st.binary() | st.text().map(str.encode) | st.just(b"[" * 100_000))
def test_reading_refusals_is_total(challenge: bytes) -> None:
    read_refusal(challenge)


@given(st.lists(st.sampled_from([m.name for m in ALL] + ["scram-sha-256", "GSSAPI"])))
def test_the_strongest_is_offered_and_served(offered: list[str]) -> None:
    credentials = Credentials("ann", "pw")
    chosen = strongest(offered, credentials)
    if chosen is None:
        assert not {name.upper() for name in offered} & {
            m.name for m in STANDARD if m.serves(credentials)
        }
        return
    assert chosen.name in {name.upper() for name in offered}
    assert chosen.serves(credentials)
    better = STANDARD[: STANDARD.index(chosen)]
    assert not any(m.name in offered and m.serves(credentials) for m in better)


@pytest.mark.parametrize(
    ("credentials", "chosen"),
    [
        (Credentials("ann", "pw", binding=BINDING), "SCRAM-SHA-256-PLUS"),
        (Credentials("ann", "pw"), "SCRAM-SHA-256"),
        (Credentials("ann", token="t"), "OAUTHBEARER"),
        (Credentials(external=True), "EXTERNAL"),
        (Credentials(trace=""), "ANONYMOUS"),
        (Credentials(), None),
        (Credentials("", "pw"), None),
    ],
)
def test_what_is_chosen_where_all_is_offered(credentials: Credentials, chosen: str | None) -> None:
    mechanism = strongest([m.name for m in ALL], credentials)
    assert (mechanism and mechanism.name) == chosen


@pytest.mark.rfc("5802 §6 p-where-plus-is-offered")
def test_binding_goes_before_a_stronger_hash() -> None:
    chosen = strongest(
        ["SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"],
        Credentials("ann", "pw", binding=BINDING),
    )
    assert chosen is not None
    assert chosen.name == "SCRAM-SHA-1-PLUS"


@pytest.mark.rfc("4954 §4 cram-md5-may-be-there")
def test_cram_md5_is_off_unless_asked_for() -> None:
    assert strongest(["CRAM-MD5"], Credentials("ann", "pw")) is None
    assert strongest(["CRAM-MD5"], Credentials("ann", "pw"), ALL) is not None
