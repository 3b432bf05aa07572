"""Send a message, and block: python examples/script.py HOST PORT SENDER RECIPIENT… (no TLS)."""

import sys
from email.message import EmailMessage

from smtpproto.blocking import send_message


def main(host: str, port: str, sender: str, *recipients: str) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, recipients, "Hello"
    message.set_content("It arrived.\n")
    print(send_message(message, host, int(port), tls="none"))


if __name__ == "__main__":
    main(*sys.argv[1:])
