"""The settings with which an address sends its mail, found and tried out.

::

    found = await discover("ann@example.org")
    if found.best is not None:
        print(found.best.host, found.best.port, found.best.tls, found.best.usernames)

Nothing of the account is given away but its address, to the configuration servers of the domain and
of the provider to which its MX records lead. Needs the extra `discover`. In reading order::

    account        what an address says
    found          what comes out
    srv            SRV records, in their order
    autoconfig     the file that mail programs read
    names          the usual names, and the provider behind an MX
    fetch          files from web servers
    check          whether a server is one to log in to
    search         all of it, bounded
"""

from __future__ import annotations

try:
    from .account import Account, AddressError
    from .fetch import Fetcher, FetchError, HttpxFetcher
    from .found import Candidate, Discovery, Finding, Source, Verdict
    from .search import Bounds, Resolver, discover
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing in {"", "smtpproto"}:
        raise
    missing = {"dns": "dnspython"}.get(missing, missing)
    raise ModuleNotFoundError(
        f"smtpproto.discover needs {missing}, which is not installed: install smtpproto with its "
        "extra `discover`, as in: pip install 'smtpproto[discover]'",
        name=error.name,
    ) from error

__all__ = [
    "Account",
    "AddressError",
    "Bounds",
    "Candidate",
    "Discovery",
    "FetchError",
    "Fetcher",
    "Finding",
    "HttpxFetcher",
    "Resolver",
    "Source",
    "Verdict",
    "discover",
]
