"""Whose mail it is, and where it ends.

In reading order::

    aliases     who stands for whom
    verp        a return path for each recipient, and the way back
    quota       what a mailbox may hold
    mailbox     where mail ends
"""
