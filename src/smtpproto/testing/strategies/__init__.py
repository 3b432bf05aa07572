"""Hypothesis strategies for all that passes between the two ends of SMTP.

Hypothesis is not installed with smtpproto: `pip install hypothesis`. The rooms::

    words, paths           text, domains, mailboxes, paths
    parameters, values     ESMTP parameters, and the typed values of those in STANDARD
    commands, replies      both as values, and the ways to write them
    content, dialogues     messages in pieces and chunks; sessions, legal and not
    sasl, proxy            logins; what a load balancer says first
    registry               how your own extension is spoken, too

What takes `extensions` speaks those that it is given. To plug in one of your own, say which
strategies make its values and its commands::

    register(TICKET, st.integers(1, 999_999_999))               # a Parameter's typed values
    register(XStatus, st.builds(XStatus, st.integers(1, 99)))   # a verb's commands

    @given(sessions((*STANDARD, XTICKET)))

Octets are `bytes` as on the wire, with CRLF unless it says otherwise.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("hypothesis") is None:  # pragma: no cover
    raise ImportError("smtpproto.testing.strategies needs hypothesis: pip install it")

from .commands import (
    attribute_commands,
    auth_commands,
    auth_responses,
    bad_lines,
    bdat_commands,
    command_spellings,
    commands,
    commands_by_verb,
    etrn_commands,
    hello_names,
    mail_commands,
    query_commands,
    rcpt_commands,
)
from .content import (
    binary_content,
    chunk_octets,
    chunks,
    clean_content,
    cuttings,
    hostile_content,
)
from .dialogues import (
    Group,
    Thing,
    client_octets,
    dialogue_octets,
    mutations,
    octets_of,
    server_octets,
    sessions,
    transactions,
)
from .parameters import (
    mail_parameters,
    parameters,
    parameters_of,
    rcpt_parameters,
    standard_mail_parameters,
)
from .paths import (
    address_literals,
    domains,
    forward_paths,
    local_parts,
    mailbox_spellings,
    mailboxes,
    path_spellings,
    reverse_paths,
)
from .proxy import proxy_headers, proxy_octets, proxy_spellings
from .registry import arguments_of, commands_of, full_offer, register, values_of
from .replies import (
    ehlo_replies,
    enhanced_statuses,
    offers,
    replies,
    replies_to,
    reply_spellings,
)
from .sasl import bindings, credentials, mechanisms, sasl_messages, sasl_names
from .values import (
    deliver_bys,
    horizons,
    maxima,
    moments,
    notifies,
    original_recipients,
    submitters,
)
from .words import base64_octets, texts, utf8_texts

__all__ = [
    "Group",
    "Thing",
    "address_literals",
    "arguments_of",
    "attribute_commands",
    "auth_commands",
    "auth_responses",
    "bad_lines",
    "base64_octets",
    "bdat_commands",
    "binary_content",
    "bindings",
    "chunk_octets",
    "chunks",
    "clean_content",
    "client_octets",
    "command_spellings",
    "commands",
    "commands_by_verb",
    "commands_of",
    "credentials",
    "cuttings",
    "deliver_bys",
    "dialogue_octets",
    "domains",
    "ehlo_replies",
    "enhanced_statuses",
    "etrn_commands",
    "forward_paths",
    "full_offer",
    "hello_names",
    "horizons",
    "hostile_content",
    "local_parts",
    "mail_commands",
    "mail_parameters",
    "mailbox_spellings",
    "mailboxes",
    "maxima",
    "mechanisms",
    "moments",
    "mutations",
    "notifies",
    "octets_of",
    "offers",
    "original_recipients",
    "parameters",
    "parameters_of",
    "path_spellings",
    "proxy_headers",
    "proxy_octets",
    "proxy_spellings",
    "query_commands",
    "rcpt_commands",
    "rcpt_parameters",
    "register",
    "replies",
    "replies_to",
    "reply_spellings",
    "reverse_paths",
    "sasl_messages",
    "sasl_names",
    "server_octets",
    "sessions",
    "standard_mail_parameters",
    "submitters",
    "texts",
    "transactions",
    "utf8_texts",
    "values_of",
]
