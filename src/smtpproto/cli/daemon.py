"""What a node is to the system that runs it: who it is there, and when it is ready."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from attrs import evolve, frozen

from .options import Failure

__all__ = ["Identity", "become", "group_number", "identity", "notify"]


NO_USERS = "user and group are for systems that have such"


@frozen
class Identity:
    """A user of this system, by name and number, and the number of his first group."""

    name: str
    uid: int
    gid: int


def identity(user: str) -> Identity:
    """Look a user up, by name or number. Failure if there is none, or if it is root. Blocks."""
    try:
        import pwd  # noqa: PLC0415 - none on Windows
    except ImportError:
        raise Failure(NO_USERS) from None
    try:
        who = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        raise Failure(f"user: there is no user {user}; make one: useradd --system {user}") from None
    if who.pw_uid == 0:
        raise Failure("user: root is whom not to be")
    return Identity(who.pw_name, who.pw_uid, who.pw_gid)


def group_number(group: str) -> int:
    """Look a group up, by name or number. Failure if there is none. Blocks."""
    try:
        import grp  # noqa: PLC0415 - none on Windows
    except ImportError:
        raise Failure(NO_USERS) from None
    try:
        return (grp.getgrgid(int(group)) if group.isdigit() else grp.getgrnam(group)).gr_gid
    except KeyError:
        raise Failure(f"group: there is no group {group}") from None


def become(user: str, group: str | None = None) -> None:
    """Give up root for good, and be this user, with his groups; `group` is another first one.

    For who is that user already nothing is done. Failure as above, if we may not, or if he cannot
    read this program.
    """
    who = identity(user)
    if group is not None:
        who = evolve(who, gid=group_number(group))
    if (os.geteuid(), os.getegid()) == (who.uid, who.gid):
        return
    if os.geteuid() != 0:
        raise Failure(f"user: only root can become {user}; leave it out, or start the node as root")
    # In this order: after the last there is no right to do the others.
    os.initgroups(who.name, who.gid)
    os.setgid(who.gid)
    os.setuid(who.uid)
    if os.getresuid() != (who.uid,) * 3 or os.getresgid() != (who.gid,) * 3:
        raise Failure(f"user: the system did not let us become {user}")
    for needed in (os.__file__, __file__):  # of which there is more to import
        if not os.access(needed, os.R_OK):
            raise Failure(f"user: {user} cannot read {needed}: install it where he can")


def notify(state: str) -> None:
    """Tell a service manager a state, such as `READY=1`, where one has asked for it (sd_notify)."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as stream:
        stream.setblocking(False)
        with suppress(OSError):  # nobody listens any more
            stream.sendto(state.encode(), path.replace("@", "\0", 1) if path[0] == "@" else path)
