"""Real mail programs on loopback, each a context manager, each with its files in one directory.

    with smtp_sink() as sink, postfix(relay_to=sink.port) as smart_host:
        swaks("--server", smart_host.address, "--to", "bob@example.org")

A program that is not installed skips the test, or fails it where SMTPPROTO_REQUIRE_PEERS=1.
All of this blocks: from a coroutine, call it in a thread (`anyio.to_thread.run_sync`).
"""

import contextlib
import grp
import imaplib
import os
import pwd
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

# Programs stop by themselves after this, should the test runner be killed before it stops them.
LIFETIME = "300"
# Nothing here takes so many seconds; what hangs ends then.
PATIENCE = 60.0
HOST = "127.0.0.1"

T = TypeVar("T")


def missing(need: str) -> NoReturn:
    """Skip, or fail where the peers were promised."""
    if os.environ.get("SMTPPROTO_REQUIRE_PEERS") == "1":
        pytest.fail(f"needs {need}", pytrace=False)
    pytest.skip(f"needs {need}")


def find(program: str, package: str) -> str:
    """The program's path; daemons live in /usr/sbin, which is not on everybody's PATH."""
    path = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    return path or missing(f"{program} (apt-get install {package})")


def wait_for(poll: Callable[[], T], what: str, *, within: float = PATIENCE) -> T:
    """The first truthy answer of `poll`."""
    deadline = time.monotonic() + within
    while not (answer := poll()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {within:g} s in vain for {what}")
        time.sleep(0.02)
    return answer


#: Which of xdist's workers this is: each has every eighth port, so that no two come for one.
WORKERS = 8
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
#: The last ones that `free_port` has given away.
_given: deque[int] = deque(maxlen=100)


def free_port() -> int:
    """A port that nobody uses, below those the kernel gives away by itself.

    So nobody comes to it by chance before whom it is for, and nobody who tries to connect to it
    meanwhile is given that very port, to find there nobody but themselves.
    """
    while True:
        # Not by `random`: hypothesis has a hand on that.
        port = 20_000 + WORKERS * secrets.randbelow(1500) + WORKER
        if port in _given:
            continue
        with contextlib.suppress(OSError), socket.create_server((HOST, port)):
            _given.append(port)
            return port


def listening(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A directory with a short name (UNIX sockets) that daemons can enter after dropping root.

    pytest's own tmp_path is neither: it is long, and closed to everybody but its owner.
    """
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


@contextlib.contextmanager
def running(*command: str, port: int, output: Path) -> Iterator[None]:
    """Run a daemon in the foreground, from the moment it listens until the block ends."""
    with (
        output.open("wb") as sink,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # daemons signal their process group when they end: not ours
        ) as process,
    ):
        try:
            wait_for(lambda: process.poll() is not None or listening(port), f"{command} to listen")
            if process.poll() is not None:
                pytest.fail(f"{command} ended with {process.returncode}:\n{output.read_text()}")
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def run(*command: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Run to the end, whatever the exit code; both outputs together, as a person would see them."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,  # swaks asks there for what it was not told
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )


def swaks(*args: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    return run(find("swaks", "swaks"), *args, timeout=timeout)


def smtp_source(*args: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    return run(find("smtp-source", "postfix"), *args, timeout=timeout)


@dataclass(frozen=True)
class SmtpSink:
    port: int
    directory: Path

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def dump(self) -> str:
        """All that came in: the envelope as X- headers, then the message, lines ended by LF."""
        file = self.directory / "dump"
        return file.read_text(errors="replace") if file.exists() else ""

    def log(self) -> str:
        """What it says of itself: with the flag -v, the dialogues."""
        return (self.directory / "output").read_text(errors="replace")

    def wait_for(self, text: str) -> str:
        """The dump, once `text` is in it."""
        wait_for(lambda: text in self.dump(), f"{text!r} in smtp-sink's dump")
        return self.dump()


@contextlib.contextmanager
def smtp_sink(*flags: str, port: int | None = None) -> Iterator[SmtpSink]:
    """Postfix's test server; `flags` inject faults, as in `smtp_sink("-r", "RCPT")`.

    One session is ours: the knock that finds it listening (it counts for `-n`).
    """
    program = find("smtp-sink", "postfix")
    port = port or free_port()
    with workspace() as directory:
        if os.getuid() == 0:  # it refuses to work as root, and insists on -u only then
            shutil.chown(directory, "nobody")
            flags = ("-u", "nobody", *flags)
        sink = SmtpSink(port, directory)
        command = (program, "-D", f"{directory}/dump", *flags, sink.address, "100")
        with running("timeout", "-k2", LIFETIME, *command, port=port, output=directory / "output"):
            yield sink


@dataclass(frozen=True)
class PostfixServer:
    port: int
    directory: Path

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def wait_for_log(self, text: str) -> str:
        """The log, once `text` is in it."""
        wait_for(lambda: text in self.log(), f"{text!r} in Postfix's log")
        return self.log()

    def maildir(self, mailbox: str) -> Path:
        return self.directory / "mail" / mailbox

    def messages(self, mailbox: str) -> list[bytes]:
        """What was delivered to `mailbox` so far, as Postfix wrote it: lines end with LF."""
        return [file.read_bytes() for file in sorted(self.maildir(mailbox).glob("new/*"))]

    def wait_for_messages(self, mailbox: str, count: int = 1) -> list[bytes]:
        what = f"{count} messages for {mailbox}"
        wait_for(lambda: len(self.messages(mailbox)) >= count, what)
        return self.messages(mailbox)


# No DNS, no chroot, no files but our own; what is deferred is tried again within a few seconds, and
# errors are answered at once. Not much sooner: a message that qmgr fetches while the agent who put
# it off has still to let go of it ("skipped, still being delivered") is forgotten until a restart.
POSTFIX_SETTINGS = {
    "compatibility_level": "3.6",
    "inet_interfaces": HOST,
    "inet_protocols": "ipv4",
    "myhostname": "postfix.example.test",
    "mynetworks": f"{HOST}/32",
    "mydestination": "",
    "alias_maps": "",
    "alias_database": "",
    "local_recipient_maps": "",
    "local_transport": "error:no local mail here",
    "disable_dns_lookups": "yes",
    "smtp_host_lookup": "native",
    "smtpd_peername_lookup": "no",
    "smtpd_relay_restrictions": "reject_unauth_destination",
    "queue_run_delay": "1s",
    "minimal_backoff_time": "3s",
    "maximal_backoff_time": "3s",
    "biff": "no",
    "smtpd_error_sleep_time": "0",
}

# service, type, private, unprivileged, chroot, wakeup, maxproc, command
POSTFIX_SERVICES = """\
{address} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
lmtp unix - - n - - lmtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
showq unix n - n - - showq
postlog unix-dgram n - n - 1 postlogd
"""


@contextlib.contextmanager
def postfix(
    *,
    mailboxes: Sequence[str] = (),
    relay_to: int | None = None,
    login: tuple[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[PostfixServer]:
    """A Postfix of our own, as a final next hop, a smart host, or a client of one.

    `mailboxes` are addresses it delivers to; others in their domains are unknown (550 5.1.1).
    With `relay_to`, it takes any mail from loopback and sends what is not its own to that port,
    there with `login` if given; without, it relays nothing. `settings` are main.cf's last word.
    """
    program, postconf = find("postfix", "postfix"), find("postconf", "postfix")
    if os.getuid() != 0:
        missing("root: Postfix starts its daemons under users of their own")
    domains = sorted({mailbox.rpartition("@")[2] for mailbox in mailboxes})
    delivery = ", ".join(f"{{{mailbox}={mailbox}/}}" for mailbox in mailboxes)
    owner = pwd.getpwnam("nobody")
    port = free_port()

    with workspace() as directory:
        server = PostfixServer(port, directory)
        main = POSTFIX_SETTINGS | {
            "queue_directory": f"{directory}/queue",
            "data_directory": f"{directory}/data",
            "maillog_file": f"{directory}/log",
            "maillog_file_prefixes": f"{directory}",
            "virtual_mailbox_base": f"{directory}/mail",
            "virtual_mailbox_domains": " ".join(domains),
            "virtual_mailbox_maps": f"inline:{{ {delivery} }}" if delivery else "",
            "virtual_uid_maps": f"static:{owner.pw_uid}",
            "virtual_gid_maps": f"static:{owner.pw_gid}",
        }
        if relay_to is not None:
            main["relayhost"] = f"[{HOST}]:{relay_to}"
            main["smtpd_relay_restrictions"] = "permit_mynetworks reject_unauth_destination"
        if login is not None:
            main["smtp_sasl_auth_enable"] = "yes"
            main["smtp_sasl_password_maps"] = f"static:{login[0]}:{login[1]}"
            main["smtp_sasl_security_options"] = "noanonymous"
        main |= settings or {}

        owners = {"etc": "root", "queue": "root", "data": "postfix", "mail": "nobody"}
        for name, user in owners.items():
            (directory / name).mkdir(mode=0o755)
            shutil.chown(directory / name, user)
        (directory / "log").touch()
        files = {
            "main.cf": "".join(f"{name} = {value}\n" for name, value in main.items()),
            "master.cf": POSTFIX_SERVICES.format(address=server.address),
        }
        for name, text in files.items():
            file = directory / "etc" / name
            file.write_text(text)
            os.utime(file, (0, 0))  # Postfix waits seconds before it trusts a file just written

        etc = f"{directory}/etc"
        checked = run(program, "-c", etc, "check")  # makes the queue's directories
        if checked.returncode:
            pytest.fail(f"postfix check:\n{checked.stdout}\n{server.log()}")
        # master itself, not `postfix start-fg`: that keeps a shell between us and the one to stop.
        daemons = run(postconf, "-c", etc, "-h", "daemon_directory").stdout.strip()
        command = (f"{daemons}/master", "-c", etc, "-s", "-e", LIFETIME)
        with running(*command, port=port, output=directory / "output"):
            yield server


@dataclass(frozen=True)
class Dovecot:
    port: int
    password: str
    directory: Path
    #: Where it takes mail, with `lmtp=True`: there, and at `lmtp_socket`.
    lmtp_port: int = 0

    @property
    def lmtp_socket(self) -> Path:
        return self.directory / "lmtp"

    def login(self, user: str) -> imaplib.IMAP4:
        """A session, to be used in a `with` block."""
        session = imaplib.IMAP4(HOST, self.port, timeout=PATIENCE)
        session.login(user, self.password)
        return session

    def messages(self, user: str) -> list[bytes]:
        """Everything in the user's inbox, lines ended by CRLF as IMAP has them."""
        with self.login(user) as session:
            session.select()
            _, numbers = session.search(None, "ALL")
            fetched = [session.fetch(number, "(RFC822)")[1][0] for number in numbers[0].split()]
        return [part[1] for part in fetched if isinstance(part, tuple)]

    def usage(self, user: str) -> dict[str, tuple[int, int]]:
        """What it says that a user's mailbox holds, and may hold: STORAGE in KiB, MESSAGE."""
        with self.login(user) as session:
            _, (_, found) = session.getquotaroot("INBOX")
        text = b" ".join(part for part in found if isinstance(part, bytes)).decode()
        triples = re.findall(r"(STORAGE|MESSAGE) (\d+) (\d+)", text)
        return {name: (int(used), int(limit)) for name, used, limit in triples}

    def lets_in(self, user: str, password: str) -> bool:
        """Whether its own program says so (`doveadm auth test`)."""
        config = str(self.directory / "dovecot.conf")
        program = find("doveadm", "dovecot-core")
        return run(program, "-c", config, "auth", "test", user, password).returncode == 0

    def log(self) -> str:
        return (self.directory / "output").read_text(errors="replace")


DOVECOT_SETTINGS = """\
protocols = {protocols}
listen = {host}
base_dir = {directory}/run
state_dir = {directory}/run
log_path = /dev/stderr
ssl = no
disable_plaintext_auth = no
mail_location = maildir:{location}
first_valid_uid = 1
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
passdb {{
  driver = {passdb}
  args = {passdb_args}
}}
auth_mechanisms = plain login scram-sha-256
auth_failure_delay = 0
userdb {{
  driver = {userdb}
  args = {users}
  default_fields = uid={uid} gid={gid} home={directory}/home
}}
service anvil {{
  chroot =
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
"""

# Dovecot opens no mailbox for uid 0. So that it can read one that a server run as root has written,
# it runs as nobody with the right to pass over owners (the securebit: access(2) says so too).
DOVECOT_LMTP = """\
service lmtp {{
  user = {user}
  inet_listener lmtp {{
    port = {port}
  }}
  unix_listener {socket} {{
  }}
}}
protocol lmtp {{
  postmaster_address = postmaster@example.test
}}
"""

# Counted in maildirsize, with no more grace than we have.
DOVECOT_QUOTA = """mail_plugins = quota
protocol imap {{
  mail_plugins = quota imap_quota
}}
plugin {{
  quota = maildir:User quota
  quota_rule = *:{quota}
  quota_rule2 = Trash:ignore
  quota_grace = 0
}}
"""

AS_NOBODY = (
    *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"),
    *("--securebits=+no_setuid_fixup", "--inh-caps=+dac_override,+chown"),
    "--ambient-caps=+dac_override,+chown",
)


@contextlib.contextmanager
def dovecot(
    location: str | Path,
    *,
    password: str = "secret",
    lmtp: bool = False,
    users: Sequence[str] = (),
    accounts: Path | None = None,
    quota: str = "",
    settings: str = "",
) -> Iterator[Dovecot]:
    """IMAP over Maildirs at `location`, where %n and %d stand for the two halves of a user's name.

    Every user exists, or those in `users`, and has the same password; or `accounts` is a
    passwd-file of those that do. With `lmtp`, it takes mail for them, too. `quota` is what each may
    hold, such as "bytes=1000:messages=10". `settings` are dovecot.conf's last word.
    """
    program = find("dovecot", "dovecot-imapd")
    if lmtp and not Path("/usr/lib/dovecot/lmtp").exists():
        missing("Dovecot's lmtp (apt-get install dovecot-lmtpd)")
    root = os.getuid() == 0
    user = pwd.getpwnam("nobody") if root else pwd.getpwuid(os.getuid())
    port = free_port()
    lmtp_port = free_port() if lmtp else 0
    with workspace() as directory:
        if accounts is not None:  # where it may go, and what it may read
            shutil.copyfile(accounts, directory / "accounts")
        config = directory / "dovecot.conf"
        socket_ = directory / "lmtp"
        more = ""
        if lmtp:
            more += DOVECOT_LMTP.format(user=user.pw_name, port=lmtp_port, socket=socket_)
        if quota:
            more += DOVECOT_QUOTA.format(quota=quota)
        listed = directory / "users"
        listed.write_text("".join(f"{name}::::::\n" for name in users))
        listed.chmod(0o644)
        config.write_text(
            DOVECOT_SETTINGS.format(
                protocols="imap lmtp" if lmtp else "imap",
                host=HOST,
                port=port,
                directory=directory,
                location=location,
                passdb="static" if accounts is None else "passwd-file",
                passdb_args=f"password={password}" if accounts is None else directory / "accounts",
                user=user.pw_name,
                group=grp.getgrgid(user.pw_gid).gr_name,
                userdb="passwd-file" if users else "static",
                users=listed if users else "allow_all_users=yes",
                uid=user.pw_uid,
                gid=user.pw_gid,
            )
            + more
            + settings
        )
        config.chmod(0o644)
        shutil.chown(directory, user.pw_uid)
        command = (*(AS_NOBODY if root else ()), "timeout", "-k2", LIFETIME, program)
        with running(*command, "-F", "-c", f"{config}", port=port, output=directory / "output"):
            yield Dovecot(port, password, directory, lmtp_port)
