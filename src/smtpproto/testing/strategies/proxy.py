"""Headers of the PROXY protocol, versions 1 and 2, and octets that come near to one."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from smtpproto.core.proxy import Address, ProxyCommand, ProxyHeader

__all__ = ["proxy_headers", "proxy_octets", "proxy_spellings"]


_ports = st.integers(0, 65_535)
_inet = st.tuples(st.ip_addresses(v=4).map(str), _ports)
_inet6 = st.tuples(st.ip_addresses(v=6).map(str), _ports)
_unix = st.binary(max_size=108).filter(lambda path: not path.endswith(b"\0"))
_tlvs = st.lists(
    st.tuples(st.integers(0, 255).filter(lambda kind: kind != 3), st.binary(max_size=40)),
    max_size=4,
)


def _two(end: st.SearchStrategy[Address]) -> st.SearchStrategy[tuple[Address, Address]]:
    return st.tuples(end, end)


@st.composite
def proxy_headers(draw: st.DrawFn, versions: Sequence[int] = (1, 2)) -> ProxyHeader:
    """Every header that can be written, in one of these versions.

    Over IPv4, IPv6 and unix sockets, with vectors and checksum; LOCAL, and nothing known.
    """
    version = draw(st.sampled_from(list(versions)))
    inet = st.one_of(_two(_inet), _two(_inet6))
    if version == 1:
        return ProxyHeader(1, ProxyCommand.PROXY, *draw(st.one_of(inet, st.just((None, None)))))
    if draw(st.integers(0, 4)) == 0:
        return ProxyHeader(2, draw(st.sampled_from(ProxyCommand)))
    source, destination = draw(st.one_of(inet, _two(_unix)))
    more = draw(st.booleans()), tuple(draw(_tlvs)), draw(st.booleans())
    return ProxyHeader(2, ProxyCommand.PROXY, source, destination, *more)


@st.composite
def proxy_spellings(draw: st.DrawFn, header: ProxyHeader) -> bytes:
    """Ways to write a header that read back equal.

    Behind UNKNOWN and LOCAL stands what nobody reads; addresses may be in upper case.
    """
    octets = header.serialize()
    if header.version == 1 and header.source is None:
        return octets[:-2] + draw(st.sampled_from([b"", b" ", b" ffff::1 any 1 2"])) + b"\r\n"
    if header.version == 1:
        return draw(st.sampled_from([octets, octets.upper()]))
    if header.source is None:
        skipped = draw(st.binary(max_size=40))
        return octets[:14] + len(skipped).to_bytes(2) + skipped
    return octets


def proxy_octets() -> st.SearchStrategy[bytes]:
    """What stands where a header should: one, one with an octet changed, half of one, none."""
    whole = proxy_headers().flatmap(proxy_spellings)

    def spoil(octets: bytes, at: int, octet: int, keep: int) -> bytes:
        at %= len(octets)
        return (octets[:at] + bytes([octet]) + octets[at + 1 :])[: keep % (len(octets) + 1) or None]

    any_int = st.integers(0, 500)
    spoiled = st.builds(spoil, whole, any_int, st.integers(0, 255), any_int)
    return st.one_of(whole, spoiled, st.binary(max_size=40))
