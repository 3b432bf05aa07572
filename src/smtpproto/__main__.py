"""`python -m smtpproto`: the command line, where its script is not on the PATH."""

from smtpproto.cli import main

if __name__ == "__main__":
    main()
