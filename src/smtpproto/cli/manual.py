"""What each setting of `serve` means, in words: for the reference, `config show` and a reload.

The settings themselves are in `config.SETTINGS` and `routes.ROUTE`; a test sees that none is left
out here, and that every example is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, frozen

from .config import ServeSettings
from .written import written

__all__ = ["MANUAL", "ROUTE_MANUAL", "Explained", "default_of", "with_fixed"]


@frozen
class Explained:
    """What a setting means, and lines of a file that give it a value.

    `restart`: a node that runs keeps the one it has. `default` is in words, where the value of
    the field does not tell it.
    """

    means: str
    example: str
    restart: bool = False
    default: str = ""


MANUAL: Mapping[str, Explained] = {
    "data": Explained(
        "Where mail, spool, login and certificate are kept.",
        'data = "/var/lib/smtpproto"',
        restart=True,
    ),
    "log": Explained(
        "How what happens is told on the screen: in words for people, or as a JSON object a line.",
        'log = "json"',
        restart=True,
    ),
    "story-size": Explained(
        "Octets that the files with every message's story may have, DATA/story.jsonl and the older "
        "story.jsonl.1: `smtpproto queue trace` reads them. The oldest stories are dropped.",
        'story-size = "1G"',
        restart=True,
    ),
    "user": Explained(
        "Who the node is once its ports are bound, if root starts it: no data is written before. "
        "Files that it reads, its settings too, have to be readable for him.",
        'user = "smtpproto"',
        restart=True,
        default="who starts it",
    ),
    "group": Explained(
        "His group.",
        'user = "smtpproto"\ngroup = "mail"',
        restart=True,
        default="the user's own",
    ),
    "workers": Explained(
        "Processes that take mail and deliver it, each on a core and with a spool of its own: as "
        "many as the machine has cores to spare, where one is not enough. Sessions that may be "
        "there at a time (`sessions-in`, `sessions-out-each`) are shared out among them; "
        "`sessions-in-each` and `sessions-out` are for each of them.",
        "workers = 4",
        restart=True,
    ),
    "metrics": Explained(
        "Where `/metrics` (for Prometheus), `/health` and `/ready` are answered over HTTP, to "
        "everybody who gets there: let it be loopback, or a network of your own. It needs the "
        "extra `metrics`.",
        'metrics = "127.0.0.1:9725"',
        restart=True,
        default="nowhere",
    ),
    "listen": Explained("Where mail from other servers comes in.", 'listen = ":25"', restart=True),
    "submission": Explained(
        "Where mail programs submit mail, with a login behind STARTTLS.",
        'submission = ":587"',
        restart=True,
    ),
    "submissions": Explained(
        "The same, with TLS from the first octet (RFC 8314 §3.3).",
        'submissions = ":465"',
        restart=True,
        default="nowhere",
    ),
    "accounts": Explained(
        "The file of those who may log in, as `smtpproto account` writes it. It is read again "
        "whenever it has changed.",
        'accounts = "accounts"',
        default="one login of the node's own making",
    ),
    "local-domains": Explained(
        "Mail for these domains ends here, in mailboxes below DATA/mail.",
        'local-domains = ["example.org"]',
    ),
    "relay-domains": Explained(
        "Domains of yours that live elsewhere: mail for them is taken from everybody, and goes on.",
        'relay-domains = ["backup.example"]',
        default="none",
    ),
    "verify-recipients": Explained(
        "Whether the next hop of a relay domain is asked who exists there, while the client waits.",
        "verify-recipients = true",
    ),
    "aliases": Explained(
        "Addresses that stand for others. A name without a domain is one in all of yours; "
        "`@domain` is a whole domain.",
        '[aliases]\n"sales@example.org" = ["ann@example.org", "bob@example.net"]\n'
        'root = "ann@example.org"',
        default="none",
    ),
    "routes": Explained(
        "What is done with mail, by recipient and sender; the first entry that fits decides.",
        '[[routes]]\nrecipients = "example.com"\nvia = "lmtp:unix:/run/dovecot/lmtp"',
        default="none",
    ),
    "mailbox-quota": Explained(
        "Octets that a mailbox may hold.", 'mailbox-quota = "1G"', default="any number"
    ),
    "mailbox-quota-messages": Explained(
        "Messages that a mailbox may hold.", "mailbox-quota-messages = 100000", default="any number"
    ),
    "mailbox-quotas": Explained(
        "What single mailboxes may hold instead.",
        '[mailbox-quotas]\n"ann@example.org" = "5G"\nbob = { size = "1G", messages = 10000 }\n'
        'postmaster = "none"',
        default="none",
    ),
    "subaddress-separator": Explained(
        "What stands before the tag of an address, as in `you+tag@example.org`.",
        'subaddress-separator = "-"',
    ),
    "subaddress-folders": Explained(
        "Whether mail with a tag goes into the mailbox's folder of that name, if there is one.",
        "subaddress-folders = true",
    ),
    "lists": Explained(
        "Those of them that have an owner: what fails is reported to him, and not to who wrote. "
        "With `verp`, each member is written to under a return path of his own.",
        '[lists."dev@example.org"]\nowner = "ann@example.org"\nmembers = ["bob@example.net"]',
        default="none",
    ),
    "verp": Explained(
        "Senders whose mail has a return path for each recipient, besides owners of such lists.",
        'local-domains = ["example.org"]\nverp = ["news@example.org"]',
        default="nobody",
    ),
    "verp-separator": Explained(
        "What stands between sender and recipient in a return path.", 'verp-separator = "-"'
    ),
    "first-retry": Explained(
        "How long after a first failure the second attempt is made; further waits double.",
        'first-retry = "15 min"',
        restart=True,
        default="5 min",
    ),
    "longest-retry": Explained(
        "The longest time between two attempts.",
        'longest-retry = "2 h"',
        restart=True,
        default="4 h",
    ),
    "lifetime": Explained(
        "How old mail grows before it is given up, and its sender has it back.",
        'lifetime = "2 d"',
        restart=True,
        default="5 d",
    ),
    "notice": Explained(
        "After how long its sender hears that it is late.",
        'notice = "never"',
        restart=True,
        default="4 h",
    ),
    "sessions-out": Explained(
        "How many sessions there are with other servers at a time; those that never answer can "
        "have but a part of them.",
        "sessions-out = 20",
        restart=True,
    ),
    "sessions-out-each": Explained(
        "How many of them there are with one host.", "sessions-out-each = 2", restart=True
    ),
    "double-bounces": Explained(
        "Who is told what failed of mail without a sender.",
        'double-bounces = "postmaster@example.org"',
        default="nobody: it is shown, and dropped",
    ),
    "dsn-to-all": Explained(
        "Whether strangers, too, may ask for reports (DSN).", "dsn-to-all = true"
    ),
    "least-by": Explained(
        "How long mail has to have left, of what is to be delivered by a time or returned "
        "(RFC 2852): what asks for less is refused at once.",
        'least-by = "5 min"',
        default="any",
    ),
    "longest-hold": Explained(
        'For how long submitted mail is held, if it asks for that (RFC 4865); "none": it cannot '
        "ask.",
        'longest-hold = "7 d"',
        default="30 d",
    ),
    "keep-bcc": Explained(
        "Whether Bcc stays in submitted mail, for all to read, where it is removed otherwise.",
        "keep-bcc = true",
    ),
    "smart-host": Explained(
        "Where all other mail goes.",
        'smart-host = "mail.example.org:587"',
        default="by MX, to each domain's own server",
    ),
    "smart-host-tls": Explained(
        "How sessions with the smart host are secured: STARTTLS required and verified, taken where "
        "it is offered (opportunistic), TLS from the first octet (implicit), or none.",
        'smart-host = "mail.example.org:587"\nsmart-host-tls = "required"',
        default="implicit on port 465, required with a login, else opportunistic",
    ),
    "smart-host-login": Explained(
        "The user to log in as there.",
        'smart-host = "mail.example.org:587"\nsmart-host-login = "ann"',
        default="no login",
    ),
    "smart-host-password-file": Explained(
        "A file whose first line is the password of that user.",
        'smart-host = "mail.example.org:587"\nsmart-host-login = "ann"\n'
        'smart-host-password-file = "password"',
        default="the environment variable SMTPPROTO_PASSWORD",
    ),
    "relay-from": Explained(
        "Networks whose clients may send anywhere without a login. Nobody else may, not even "
        "loopback.",
        'relay-from = ["192.0.2.0/24"]',
        default="nobody",
    ),
    "hostname": Explained(
        "The node's own name: in its greeting, in Received lines, and in EHLO.",
        'hostname = "mail.example.org"',
        restart=True,
    ),
    "hold-quota": Explained(
        "Octets of mail that a login may have waiting here to be sent later (FUTURERELEASE).",
        'hold-quota = "1G"',
    ),
    "hold-quota-messages": Explained("The same in messages.", "hold-quota-messages = 100"),
    "max-message": Explained("Octets that one message may have.", 'max-message = "50M"'),
    "max-recipients": Explained(
        "Recipients that one transaction may have; more of them hear 452, and come in another.",
        "max-recipients = 100",
    ),
    "sessions-in": Explained(
        "How many clients may be connected at a time; more of them hear 421.",
        "sessions-in = 200",
        restart=True,
    ),
    "sessions-in-each": Explained(
        "How many of them may come from one address, or one IPv6 /64.",
        "sessions-in-each = 10",
        restart=True,
    ),
    "check-senders": Explained(
        "Whether the DNS is asked, of a stranger's mail, if its sender's domain takes mail at all "
        "(RFC 7505).",
        "check-senders = false",
        default="true, unless `listen` is on loopback",
    ),
    "filters": Explained(
        "What is kept out: filters in the order in which they are asked, each with its own keys "
        "(below, and in docs/howto/keep-spam-out.md).",
        '[[filters]]\nuse = "greylist"',
        default="none",
    ),
    "limits": Explained(
        "How much is taken of whom in which time.",
        '[[limits]]\nwhat = "messages"\nper = "account"\nmost = 100\nin = "1h"',
        default="none",
    ),
    "filters-fail": Explained(
        "What is done where a filter fails or is too slow: mail passes, or is put off.",
        'filters-fail = "defer"',
    ),
}

ROUTE_MANUAL: Mapping[str, Explained] = {
    "recipients": Explained(
        "For whom the entry is; one or several.",
        'recipients = ["example.com", ".example.net"]',
        default="everybody",
    ),
    "senders": Explained(
        "From whom; with `recipients`, both have to fit.",
        'senders = "ann@example.org"',
        default="everybody",
    ),
    "via": Explained(
        "What is done: a host by SMTP or LMTP, the MX records, the mailboxes here, or nothing. "
        "Several hosts are tried in their order; those in a list within the list are equals.",
        'via = ["smtp:mail.example.com:25", "smtp:backup.example.com:25"]',
        default="none: it has to be there",
    ),
    "tls": Explained(
        "How sessions with the host are secured.",
        'tls = "required"',
        default="as `smart-host-tls`; required with `ca-file`; none on a UNIX socket",
    ),
    "login": Explained(
        "The user to log in as there.",
        'login = "ann"\npassword-file = "password"',
        default="no login",
    ),
    "password-file": Explained(
        "A file whose first line is the password of that user.",
        'login = "ann"\npassword-file = "password"',
        default="none",
    ),
    "ca-file": Explained(
        "The certificates that are trusted there, and no others.",
        'ca-file = "ca.pem"',
        default="what this machine trusts",
    ),
    "first-retry": Explained(
        "How long after a first failure the second attempt is made.",
        'first-retry = "5 min"',
        default="as all mail",
    ),
    "longest-retry": Explained(
        "The longest time between two attempts.", 'longest-retry = "4 h"', default="as all mail"
    ),
    "lifetime": Explained(
        "How old mail grows before it is given up.", 'lifetime = "2 d"', default="as all mail"
    ),
    "notice": Explained(
        "After how long its sender hears that it is late.",
        'notice = "never"',
        default="as all mail",
    ),
}


def default_of(name: str) -> str:
    """Say in words what holds where nobody says anything; a value is written as in a file."""
    told = MANUAL[name].default
    return told or written(getattr(ServeSettings(), name.replace("-", "_")))


def with_fixed(told: ServeSettings, running: ServeSettings) -> tuple[ServeSettings, list[str]]:
    """Return what a node that runs can take of new settings, and the names of those it cannot."""
    fixed = {
        name: getattr(running, name.replace("-", "_"))
        for name, setting in MANUAL.items()
        if setting.restart
        and getattr(told, name.replace("-", "_")) != getattr(running, name.replace("-", "_"))
    }
    kept = {name.replace("-", "_"): value for name, value in fixed.items()}
    return evolve(told, **kept), list(fixed)
