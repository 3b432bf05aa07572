"""The fuzz targets: each takes any octets, and fails where a promise is broken.

::

    server     octets to a server                    server_octets
    client     octets to a client with a script      client_octets
    grammar    lines, paths, parameters, values      grammar_laws
    proxy      what a load balancer says first       proxy_headers
    sasl       every mechanism, either side          sasl_exchanges
    joined     both sides on a harmful wire          joined_ends

    draw       how all of them read a fuzzer's octets
    seeds      what a fuzzer starts from
    corpus     what fuzzers have found to be worth keeping, and findings
    run        the long run; worker is its one process that needs atheris
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from .client_octets import client_octets
from .grammar_laws import grammar_laws
from .joined_ends import joined_ends
from .proxy_headers import proxy_headers
from .sasl_exchanges import sasl_exchanges
from .server_octets import server_octets

__all__ = ["TARGETS", "Target"]

Target: TypeAlias = Callable[[bytes], None]

TARGETS: Mapping[str, Target] = {
    "server": server_octets,
    "client": client_octets,
    "grammar": grammar_laws,
    "proxy": proxy_headers,
    "sasl": sasl_exchanges,
    "joined": joined_ends,
}
