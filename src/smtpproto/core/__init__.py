"""The protocol, pure: it opens no socket, reads no clock, logs nothing and never sleeps.

In reading order, each file importing only those above it::

    errors, value, grammar, buffer      the ground
    xtext, base64                       octets as visible characters
    path, status, reply                 addresses and answers
    parameter, command, extension       what a client says, and how that grows
    offer                               what a server lets it say at one time
    envelope, content, reception        what a message is on the wire
    transaction                         what a server has accepted of one so far
    event, sasl                         what else passes between the two ends
    state                               every move, in one table
    refusal                             what a server refuses with by itself
    answer                              what it may say, beyond the first digit
    welcome                             what it says under its own name
    connection                          what both ends share
    server_connection, client_connection
    proxy                               what a load balancer says first
"""
