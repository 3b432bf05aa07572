"""Out: everything between the spool and a next hop or a mailbox.

In reading order::

    times       from when on and by when it is wanted
    hops        what is known of next hops
    clients     sessions with them
    callout     … and who exists there
    attempt     what came of it, for whom
    unread      … where the spool could not give it
    ways        by which way a recipient goes
    onward      what goes on to a next hop, and how
    deliver     one attempt
    verdict     what follows from it
    hands       tasks that are kept for it
    dispatch    the loop over them
"""
