"""A queueing mail server to embed, made of the client and the server (extra: relay)."""
