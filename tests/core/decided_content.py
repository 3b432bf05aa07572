"""What was decided about content, chunks, UTF-8 and LMTP: for decisions.py."""

from smtpproto.extensions import SMTPUTF8

from .decision import (
    BASIC,
    BINARY,
    CHUNKED,
    HELLO,
    LMTP,
    MAIL,
    OLD_HELLO,
    OLD_RCPT,
    RCPT,
    UTF8,
    Decision,
    chunks,
    content,
    line,
    lmtp,
    utf8,
)

__all__ = ["CONTENT"]


def _octets(octets: bytes, why: str) -> Decision:
    offered = (*BASIC, SMTPUTF8)
    return Decision(octets, "501 5.1.3", why, UTF8, (("extensions", offered), ("offer", offered)))


CONTENT: dict[str, list[Decision]] = {
    "Content": [
        content(b".\r\n", "250 2.0.0", "Empty: the CRLF of DATA counts (§4.1.1.4)."),
        content(b"a\r\n.\r\n", "250 2.0.0", ""),
        content(
            b"a\n.\nb\r\n.\r\n", "554 5.6.0", "A bare LF ends nothing, and is refused (§2.3.8)."
        ),
        content(b"a\n.\r\nb\r\n.\r\n", "554 5.6.0", "The same."),
        content(b"a\r\n.\nb\r\n.\r\n", "554 5.6.0", "The same."),
        content(b"a\r.\rb\r\n.\r\n", "554 5.6.0", "A bare CR, too."),
        content(b"a\r.\r\nb\r\n.\r\n", "554 5.6.0", "The same."),
        content(b"a\r\n.\rb\r\n.\r\n", "554 5.6.0", "The same."),
        content(b"a\r\r\n.\r\n", "554 5.6.0", "Its end, since the last five octets are."),
        content(b"a\r\n.\r\r\nb\r\n.\r\n", "554 5.6.0", "Not its end."),
        content(b"a\r\n\0.\r\nb\r\n.\r\n", "250 2.0.0", "NUL is an octet of content; no end here."),
        content(
            b"a\n.\nb\r\n.\r\n",
            "250 2.0.0",
            "With `repair`: made CRLF, and no end either.",
            repair=True,
        ),
        content(
            b"x" * 1001 + b"\r\n.\r\n",
            "552 5.3.4",
            "Over the limit, here 1000: swallowed, refused.",
        ),
        content(
            b"x" * 998 + b"\r\n.\r\n", "250 2.0.0", "1000, without the end mark (RFC 1870 §3)."
        ),
    ],
    "Chunks, where CHUNKING and BINARYMIME are offered": [
        chunks(b"BDAT 3 LAST\r\nHi\n", "554 5.6.0", "A bare LF is refused as after DATA."),
        chunks(b"BDAT 4 LAST\r\nHi\r\n", "250 2.0.0", "One chunk is a message."),
        chunks(b"bdat 2 last\r\nHi", "250 2.0.0", "In any case; no line end is asked for."),
        chunks(b"BDAT 2   LAST \r\nHi", "250 2.0.0", "More spaces than one are tolerated."),
        chunks(b"BDAT 2\r\nHiBDAT 2 LAST\r\n\r\n", "250 2.0.0, 250 2.0.0", "One reply for each."),
        chunks(b"BDAT 0\r\nBDAT 0 LAST\r\n", "250 2.0.0, 250 2.0.0", "Empty ones are chunks."),
        chunks(b"BDAT 005 LAST\r\n.\r\n.\r", "554 5.6.0", "Leading zeros are digits; a bare CR."),
        chunks(
            b"BDAT 11 LAST\r\n.a\r\n..\r\n.\r\n", "250 2.0.0", "Dots are dots, and end nothing."
        ),
        chunks(
            b"BDAT 12 LAST\r\nRSET\r\nQUIT\r\n", "250 2.0.0", "Content, whatever it looks like."
        ),
        chunks(
            b"BDAT 2\r\na\rBDAT 2 LAST\r\n\nb",
            "250 2.0.0, 250 2.0.0",
            "A pair of CR and LF may be cut by two chunks.",
        ),
        chunks(
            b"BDAT 2\r\na\rBDAT 1 LAST\r\nb",
            "250 2.0.0, 554 5.6.0",
            "That CR stays bare.",
        ),
        chunks(
            b"BDAT 2\r\na\nBDAT 2\r\nbcBDAT 1 LAST\r\ndBDAT 1\r\ne",
            "554 5.6.0, 503 5.5.1, 503 5.5.1, 503 5.5.1",
            "After a refused chunk, those on their way are swallowed and refused (RFC 3030 §2).",
        ),
        chunks(
            b"BDAT 1\r\n\rBDAT 1\r\n\rRSET\r\nMAIL FROM:<a@b>\r\n",
            "250 2.0.0, 554 5.6.0, 250 2.0.0, 250 2.1.0",
            "RSET ends that state, too.",
        ),
        chunks(
            b"BDAT 2\r\nabRSET\r\nBDAT 1 LAST\r\nc",
            "250 2.0.0, 250 2.0.0, 503 5.5.1",
            "RSET between chunks drops the message.",
        ),
        chunks(
            b"BDAT 2\r\nabNOOP\r\nBDAT 0 LAST\r\n",
            "250 2.0.0, 250 2.0.0, 250 2.0.0",
            "What moves nothing may stand between them.",
        ),
        chunks(
            b"BDAT 2\r\nabDATA\r\nRCPT TO:<c@d>\r\nMAIL FROM:<>\r\nBDAT 0 LAST\r\n",
            "250 2.0.0, 503 5.5.1, 503 5.5.1, 503 5.5.1, 250 2.0.0",
            "What would, may not (RFC 3030 §3).",
        ),
        chunks(
            b"BDAT 600\r\n" + b"x" * 600 + b"BDAT 401 LAST\r\n" + b"x" * 401,
            "250 2.0.0, 552 5.3.4",
            "The limit, here 1000, is on all chunks together.",
        ),
        chunks(b"BDAT 5 LAST\r\nQUIT\n", "503 5.5.1", "No recipient; swallowed.", MAIL),
        chunks(b"BDAT 5\r\nQUIT\n", "503 5.5.1", "The same.", MAIL),
        chunks(b"BDAT 6\r\nQUIT\r\n", "503 5.5.1", "No transaction; swallowed.", HELLO),
        chunks(b"BDAT 6 LAST\r\nQUIT\r\n", "503 5.5.1", "No EHLO; swallowed.", b""),
        chunks(b"BDAT 6 LAST\r\nQUIT\r\n", "503 5.5.1", "Nor is HELO enough.", OLD_RCPT),
        chunks(b"BDAT\r\n", "501 5.5.4, closed", "How much is content, nobody knows."),
        chunks(b"BDAT LAST\r\n", "501 5.5.4, closed", "The same."),
        chunks(b"BDAT -1\r\n", "501 5.5.4, closed", "The same."),
        chunks(b"BDAT +1\r\n", "501 5.5.4, closed", "The same."),
        chunks(b"BDAT 1_0\r\n", "501 5.5.4, closed", "The same."),
        chunks(b"BDAT 0x1\r\n", "501 5.5.4, closed", "The same."),
        chunks("BDAT ٣\r\n".encode(), "501 5.5.4, closed", "The same."),
        chunks(b"BDAT 1 LASTLY\r\n", "501 5.5.4, closed", "The same."),
        chunks(b"BDAT 1LAST\r\n", "501 5.5.4, closed", "The same."),
        chunks(b"BDAT 1 LAST LAST\r\n", "501 5.5.4, closed", "The same."),
        chunks(b"BDAT\t1\r\n", "501 5.5.4, closed", "Unknown, and yet somebody means it."),
        chunks(b"BDAT 1\0\r\n", "501 5.5.4, closed", "The same."),
        chunks(b"BDAT 1" + b" " * 520 + b"\r\n", "501 5.5.4, closed", "Too long a line."),
        chunks(b"BDAT " + b"9" * 21 + b"\r\n", "501 5.5.4, closed", "21 digits are no size."),
        chunks(b"BDAT\r\n", "501 5.5.4, closed", "In any state.", b""),
        line("BDAT 1 LAST", "500 5.5.2", "Unknown where nobody knows CHUNKING.", RCPT),
        Decision(
            b"BDAT 6 LAST\r\nQUIT\r\n",
            "502 5.5.1",
            "Known and not offered: swallowed all the same.",
            RCPT,
            (("extensions", CHUNKED), ("offer", BASIC)),
        ),
        chunks(b"BDAT 3 LAST\r\n\n\r.", "250 2.0.0", "BINARYMIME has no lines.", BINARY),
        chunks(b"DATA\r\n", "503 5.5.1", "BINARYMIME goes by BDAT (RFC 3030 §3).", BINARY),
    ],
    "UTF-8, where SMTPUTF8 is offered": [
        utf8("MAIL FROM:<é@b> SMTPUTF8", "250 2.1.0", "It is asked for (RFC 6531 §3.4)."),
        utf8("MAIL FROM:<é@b> smtputf8", "250 2.1.0", "In any case."),
        utf8("MAIL FROM:<é@b>", "550 5.6.7", "It is not (RFC 6531 §3.5)."),
        utf8("MAIL FROM:<é@b> SMTPUTF8=1", "501 5.5.4", "It takes no value."),
        utf8("MAIL FROM:<a@b> SMTPUTF8", "250 2.1.0", "It need not be made use of."),
        utf8("RCPT TO:<é@c>", "553 5.6.7", "MAIL did not ask for it.", MAIL),
        utf8("RCPT TO:<é@c>", "250 2.1.5", "MAIL did.", UTF8),
        utf8("RCPT TO:<é@c> SMTPUTF8", "555 5.5.4", "It is a parameter of MAIL.", UTF8),
        utf8('RCPT TO:<"é è"@c>', "250 2.1.5", "In quotes.", UTF8),
        utf8("RCPT TO:<c@grüße.example>", "250 2.1.5", "A U-label.", UTF8),
        utf8("RCPT TO:<c@[é:x]>", "501 5.1.3", "No literal has it.", UTF8),
        utf8("RCPT TO:<c\u2028d@e>", "250 2.1.5", "A line separator ends no line,", UTF8),
        utf8("RCPT TO:<c\x85d@e>", "250 2.1.5", "nor does a C1 control.", UTF8),
        _octets(b"RCPT TO:<\xc0\xaf@e>\r\n", "In the shortest form alone (RFC 3629 §3),"),
        _octets(b"RCPT TO:<\xed\xa0\x80@e>\r\n", "no surrogates,"),
        _octets(b"RCPT TO:<\xf4\x90\x80\x80@e>\r\n", "and nothing beyond Unicode."),
        utf8("MAIL FROM:<a@b> SIZE=٣", "501 5.5.4", "Nor is UTF-8 in a value."),
        utf8("MAIL FROM:<a@b> SIZE=٣ SMTPUTF8", "501 5.5.4", "Digits are ASCII."),
        utf8("MAIL FROM:<a@b> XYZ=é SMTPUTF8", "555 5.5.4", "A value; nobody offered it."),
        utf8("VRFY é", "252 2.5.0", "What is asked for may be UTF-8 (RFC 6531 §3.7.4.2)."),
        utf8("VRFY é SMTPUTF8", "252 2.5.0", "The same, and so may the reply."),
        utf8("VRFY jo smtputf8", "252 2.5.0", "In any case."),
        utf8("VRFY SMTPUTF8", "252 2.5.0", "Somebody may have that name."),
        utf8("VRFY é", "553 5.6.7", "Not before EHLO said so.", b""),
        utf8("VRFY é", "553 5.6.7", "Nor for an old client.", OLD_HELLO),
        utf8("VRFY jo SMTPUTF8", "504 5.5.4", "The same.", OLD_HELLO),
        utf8("NOOP é", "501 5.5.4", "No other argument is."),
        utf8("EHLO é", "501 5.5.4", "A name is an A-label (RFC 6531 §3.7.1).", b""),
    ],
    "LMTP (RFC 2033), to a server that offers CHUNKING": [
        lmtp(b"LHLO c.example\r\n", "250-", "Its only greeting (§4.1).", b""),
        lmtp(b"EHLO c.example\r\n", "500 5.5.2", "Not SMTP's (§4.1).", b""),
        lmtp(b"HELO c.example\r\n", "500 5.5.2", "Neither.", b""),
        line("LHLO c.example", "500 5.5.2", "And the other way round.", b""),
        lmtp(b"DATA\r\n", "503 5.5.1", "No recipient (§4.2).", LMTP),
        lmtp(b"DATA\r\n.\r\n", "354, 250 2.0.0, 250 2.0.0", "One for each recipient (§4.2)."),
        lmtp(
            b"DATA\r\na\nb\r\n.\r\n",
            "354, 554 5.6.0, 554 5.6.0",
            "So is the refusal of bad content.",
        ),
        lmtp(
            b"DATA\r\n" + b"x" * 1001 + b"\r\n.\r\n",
            "354, 552 5.3.4, 552 5.3.4",
            "And that of too much.",
        ),
        lmtp(
            b"RCPT TO:<g@h>\r\nDATA\r\n.\r\n",
            "452 4.5.3, 354, 250 2.0.0, 250 2.0.0",
            "None for who was refused.",
        ),
        lmtp(b"BDAT 2 LAST\r\nab", "250 2.0.0, 250 2.0.0", "The last chunk, too (§4.3)."),
        lmtp(
            b"BDAT 2\r\nabBDAT 0 LAST\r\n",
            "250 2.0.0, 250 2.0.0, 250 2.0.0",
            "One for the others: they are answered as ever.",
        ),
        lmtp(
            b"BDAT 1\r\n\nBDAT 1 LAST\r\nx",
            "554 5.6.0, 503 5.5.1, 503 5.5.1",
            "The last chunk behind a refused one.",
        ),
        lmtp(b"BDAT 6\r\nQUIT\r\n", "503 5.5.1", "No recipient; swallowed.", LMTP),
        lmtp(
            b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n",
            "250 2.0.0",
            "As many replies as recipients: none (§4.3). The 250 is that of NOOP.",
            LMTP,
        ),
    ],
}
