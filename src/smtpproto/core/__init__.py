"""The protocol, pure: it opens no socket, reads no clock, logs nothing and never sleeps.

In reading order, each file importing only those above it::

    errors, value, grammar, buffer      the ground
    xtext, path, status, reply          addresses and answers
    parameter, command, extension       what a client says, and how that grows
    envelope, content, event, sasl      what passes between the two ends
    state                               every move, in one table
    connection                          what both ends share
    server_connection, client_connection
    proxy                               what a load balancer says first
"""
