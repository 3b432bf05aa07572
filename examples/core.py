"""The core alone: two ends of SMTP, and not a socket in sight."""

from smtpproto import STANDARD, ClientConnection, Ehlo, Reply, ServerConnection

server = ServerConnection("mx.example.org", STANDARD)
client = ClientConnection(STANDARD)

client.receive_data(server.send(server.suggested_reply()))  # the greeting
print(client.next_event())
server.receive_data(client.send(Ehlo("laptop.example.net")))
print(server.next_event())  # Ehlo(name=b'laptop.example.net')
client.receive_data(server.send(server.suggested_reply()))
reply = client.next_event()
assert isinstance(reply, Reply)
print(reply.code, client.offered)  # 250 {'PIPELINING': '', 'SIZE': '26214400', …}
