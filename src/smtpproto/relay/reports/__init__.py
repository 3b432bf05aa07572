"""What is told: to senders, and to operators.

In reading order::

    report      what a sender gets to read (DSN)
    story       what happened to a message, as it happens
    story_file  … kept for who asks
"""
