"""Passwords as they are stored: each scheme reads what it wrote, and lets one password in."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.mechanisms.scram import derive_keys
from smtpproto.relay.accounts.schemes import (
    DEFAULT,
    MAX_PASSWORD,
    SCHEMES,
    Argon2,
    Plain,
    ScramSha256,
    ShaCrypt,
    make_secret,
    read_secret,
)
from smtpproto.relay.accounts.sha_crypt import MAX_ROUNDS, is_sha_crypt, sha_crypt

# Made by `doveadm pw -s SCHEME -p secret`.
BY_DOVECOT = [
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$zEILtwQ+423wohrSSTc/wQ"
    "$FNWfWyYstesvfntPtoerO0f4VzCwZAbVV6gtaiVQ4RU",
    "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$k/X23HSjQ4kLGlHy8/qkdQ"
    "$ahYI+/Da3k/PTJS+M9wqc31n8zT31fxi7n0W1e8lbV8",
    "{SHA512-CRYPT}$6$o6f5syA./wgm7AVy$R8qNP1t0g.x.o./2Q6ULgJ5juYk/uBT2juFTBwFwr5FlBeBYOVsKa"
    "/UvZkG9KdPfNKz/P0FqNbinfO/ud25Gn1",
    "{SHA256-CRYPT}$5$HeU5gz9fWGgreyIh$9dn9OZSwcOEa7VKqJEXr8V6mBUJavpNuWlEuQGMS1A5",
    "{SCRAM-SHA-256}4096,Q/meqvUrntSEEqfEd3WA9w==,+A0NJgw/ss0qMiWdupNINyvp7ji44Vm1gdRQgHFghVE=,"
    "FiwGPELgpTY3q+ZG9JB/jWkHQJv8of/QbRX1i+1m3xQ=",
    "{PLAIN}secret",
]

LONG = "a very much longer text to encrypt.  This one even stretches over morethan one line."
# From the specification of SHA-crypt.
VECTORS = [
    ("Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
    (
        "Hello world!",
        "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA",
    ),
    (LONG, "$5$rounds=1400$anotherlongsalts$Rx.j8H.h8HjEDGomFU8bDkXm3XIUnzyxf12oP84Bnq1"),
    (
        "we have a short salt string but not a short password",
        "$5$rounds=77777$short$JiO1O3ZpDAxGJeaDIuqCoEFysAe1mZNJRs3pw0KQRd/",
    ),
    (
        "Hello world!",
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoE"
        "OfaS35inz1",
    ),
    (
        "This is just a test",
        "$6$rounds=5000$toolongsaltstrin$lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwllF7oGDZxUhx1yxdY"
        "cz/e1JSbq3y6JMxxl8audkUEm0",
    ),
    (
        LONG,
        "$6$rounds=1400$anotherlongsalts$POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x9t0"
        "oSwbtEW7o7UmJEiDwGqd8p4ur1",
    ),
]


@pytest.mark.parametrize(("password", "text"), VECTORS)
def test_sha_crypt_is_what_its_specification_says(password: str, text: str) -> None:
    assert sha_crypt(password.encode(), text) == text
    assert is_sha_crypt(text)


@pytest.mark.parametrize(
    "text",
    [
        "$5$saltstring",
        "$6$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",  # of the other's length
        "$5$rounds=999$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
        f"$5$rounds={MAX_ROUNDS + 1}$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
        "$5$saltstringsaltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
        "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc!",
        "$1$saltstring$5B8vYYiY.CVt1RlTTf8KbX",
        "",
    ],
)
def test_what_is_no_sha_crypt_is_not_taken_for_one(text: str) -> None:
    assert not is_sha_crypt(text)
    with pytest.raises(ValueError, match=r"\$5\$"):
        read_secret(text)


@pytest.mark.parametrize("text", BY_DOVECOT)
def test_what_doveadm_made_lets_its_password_in(text: str) -> None:
    secret = read_secret(text)
    assert secret.fits("secret")
    assert not secret.fits("Secret")
    assert not secret.fits("")
    assert f"{{{secret.scheme}}}" == text[: text.index("}") + 1]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_we_make_lets_its_password_in(scheme: str) -> None:
    text = make_secret("grün und blau", scheme)
    secret = read_secret(text)
    assert secret.scheme == scheme
    assert secret.fits("grün und blau")
    assert not secret.fits("grun und blau")
    assert scheme == "PLAIN" or make_secret("grün und blau", scheme) != text  # a salt of its own


def test_the_schemes_are_what_they_are_called() -> None:
    kinds = [type(read_secret(make_secret("x", scheme))) for scheme in SCHEMES]
    assert kinds == [ScramSha256, Argon2, Argon2, ShaCrypt, ShaCrypt, Plain]
    assert DEFAULT in SCHEMES


def test_a_hash_of_crypt_needs_no_scheme_and_case_makes_no_difference() -> None:
    text = make_secret("secret", "SHA512-CRYPT").removeprefix("{SHA512-CRYPT}")
    for spelled in (text, "{CRYPT}" + text, "{sha512-crypt}" + text):
        assert read_secret(spelled).fits("secret")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1), st.binary())
def test_the_keys_of_scram_are_read_as_they_were_written(password: str, salt: bytes) -> None:
    keys = derive_keys(password, salt or b"salt", iterations=2)
    assert ScramSha256.read(ScramSha256(keys).written()).keys == keys


SALT, KEY = "c2FsdA==", "A" * 43 + "="


@pytest.mark.parametrize(
    "text",
    [
        "{SCRAM-SHA-256}",
        "{SCRAM-SHA-256}4096",
        f"{{SCRAM-SHA-256}}0,{SALT},{KEY},{KEY}",
        f"{{SCRAM-SHA-256}}-1,{SALT},{KEY},{KEY}",
        f"{{SCRAM-SHA-256}}4096,,{KEY},{KEY}",
        f"{{SCRAM-SHA-256}}4096,{SALT},{KEY},AAAA",
        f"{{SCRAM-SHA-256}}4096,{SALT},{KEY},{KEY[:-1]}!",
        f"{{SCRAM-SHA-256}}9999999999,{SALT},{KEY},{KEY}",
        f"{{SCRAM-SHA-256}}4096,{SALT},{KEY},{KEY},{KEY}",
        "{ARGON2ID}",
        "{ARGON2ID}secret",
        "{ARGON2ID}$argon2id$v=19$m=65536,t=3$c2FsdA$aGFzaA",
        "{ARGON2ID}$argon2id$v=19$m=1048577,t=1,p=1$zEILtwQ+423wohrSSTc/wQ"
        "$FNWfWyYstesvfntPtoerO0f4VzCwZAbVV6gtaiVQ4RU",
        "{ARGON2ID}$argon2id$v=19$m=65536,t=257,p=1$zEILtwQ+423wohrSSTc/wQ"
        "$FNWfWyYstesvfntPtoerO0f4VzCwZAbVV6gtaiVQ4RU",
        "{SSHA}secret",
        "{PLAIN}",
        "{PLAIN}a\tb",
        "{SHA512-CRYPT}secret",
        "secret",
        "!",
        "",
    ],
)
def test_what_cannot_be_read_is_told_without_the_secret(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        read_secret(text)
    assert "secret" not in str(caught.value)
    assert "AAAA" not in str(caught.value)


@pytest.mark.parametrize(
    ("password", "scheme"), [("", DEFAULT), ("x" * (MAX_PASSWORD + 1), DEFAULT), ("x", "SSHA")]
)
def test_what_cannot_be_made_is_told(password: str, scheme: str) -> None:
    with pytest.raises(ValueError, match=r"password|known here"):
        make_secret(password, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_secret_is_in_a_repr(scheme: str) -> None:
    text = make_secret("horse", scheme)
    hidden = re.split(r"[},$]", text)[-1]
    assert hidden not in repr(read_secret(text))
