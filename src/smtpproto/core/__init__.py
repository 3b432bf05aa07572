"""The protocol, pure: it opens no socket, reads no clock, logs nothing and never sleeps.

In reading order, each file importing only those above it::

    errors, value, grammar, buffer      the ground
    xtext, path, status, reply          addresses and answers
    parameter, command, extension       what a client says, and how that grows
    offer                               what a server lets it say at one time
    envelope, content, reception        what a message is on the wire
    event, sasl                         what else passes between the two ends
    state                               every move, in one table
    connection                          what both ends share
    server_connection, client_connection
    proxy                               what a load balancer says first
"""
