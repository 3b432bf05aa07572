"""The same dialogues with our server, aiosmtpd and Postfix: where they differ, and who is right.

`cases/` says what is sent and what the RFCs demand, `play` says it to a server over a socket,
`servers` starts the servers, `record` keeps what they answered in `recorded.json`, and `page`
makes `docs/reference/differences.md` of that. `python -m tests.differential` compares what runs
here with the record, `--write` replaces both. Needs Postfix and Dovecot, and root for Postfix.
"""
