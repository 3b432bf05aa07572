"""Where mail goes: next hops, and the rules by which one is chosen.

In reading order::

    access      how a next hop is talked to: login, TLS, certificates
    transport   what can be done with a recipient: next hops, and what is none
    schedule    when it is tried again
    table       rules, by recipient and by sender
    route       what is done with it: by the rules; else by the DNS (...resolve)
"""
