"""In: who may send what, and how it comes into the spool.

In reading order::

    policy      who may send to whom
    offers      what is taken on
    holding     … and how much of it is to be sent later
    submission  what mail programs hand over, completed
    handler     what exists; Received; spool
    screening   … and what the filters keep out
"""
