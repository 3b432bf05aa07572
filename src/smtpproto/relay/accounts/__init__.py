"""Who may log in, and send as whom.

In reading order::

    sha_crypt, schemes  passwords as they are stored
    passwd              the file of accounts, which Dovecot reads, too
    login               authenticators over it, and over what is in memory
    guessing            who may not try again so soon
"""
