"""Where a message is safe.

In reading order::

    seam        what a spool is, and the values that go through it
    sqlite      the real one
    work        … what is to be done, and the turns of it
    database    … its file, and the thread that writes; many messages share one sync
    schema      … its tables
    rows        … what stands in a row
    incoming    … a message on its way in
    outgoing    … and on its way out
    arrivals    … what has just come, and need not be read again
    leases      … who has a message in hand
    claims      … what is due
    settle      … what came of it
    disk        … synced, and torn in no crash
    timekeeping … and when, if the clock was set back
    check       what a disk has lost all the same
    salvage     … and what can be had of it
"""
