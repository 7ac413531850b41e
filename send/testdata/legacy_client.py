"""A client of the line protocol, for the tests: python3 legacy_client.py FILE DEST

It is written from the protocol's description alone and shares no code with
anything it is tested against: one connection a request, "FILE DEST" and a
newline, then whatever comes until the server closes. A reply that begins with
"Success" is exit 0 and silence; any other goes to standard error, with exit 1.

S3DAEMON_HOST and S3DAEMON_PORT name the server. PIECES=N sends the request N
bytes at a time, one packet each.
"""
import os
import socket
import sys


def ask(request, piece):
    address = (os.environ.get("S3DAEMON_HOST", "127.0.0.1"),
               int(os.environ.get("S3DAEMON_PORT", "15555")))
    with socket.create_connection(address) as conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(request), piece):
            conn.sendall(request[at:at + piece])
        reply = b""
        while True:
            got = conn.recv(4096)
            if not got:
                return reply
            reply += got


def main():
    if len(sys.argv) != 3:
        sys.stderr.write("usage: legacy_client.py FILE DEST\n")
        return 1
    request = os.fsencode(sys.argv[1]) + b" " + os.fsencode(sys.argv[2]) + b"\n"
    piece = int(os.environ.get("PIECES", len(request)))
    reply = ask(request, piece)
    if reply.startswith(b"Success"):
        return 0
    sys.stderr.buffer.write(reply)
    return 1


sys.exit(main())
