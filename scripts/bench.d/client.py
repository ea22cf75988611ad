"""A client of the protocol's first pages: it logs in, by SCRAM if it is asked to, and says simple queries."""

import base64
import functools
import hashlib
import hmac
import os
import socket
import struct

from cluster import DATABASE, USER
from processes import Failed

PASSWORD = "bench"  # where clients prove themselves; PostgreSQL trusts the proxies
SCRAM_ASKED = struct.pack("!i", 10)
READY = b"Z\0\0\0\x05I"
BUFFER = bytearray(1 << 20)


def log_in(port, user=USER):
    client = socket.create_connection(("127.0.0.1", port), 60)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    words = b"".join(word.encode() + b"\0" for word in ("user", user, "database", DATABASE)) + b"\0"
    client.sendall(struct.pack("!ii", 8 + len(words), 3 << 16) + words)
    asked = client.recv(4096, socket.MSG_PEEK)
    if asked[:1] == b"R" and asked[5:9] == SCRAM_ASKED:
        scram(client)
    until_ready(client)
    return client


def log_out(client):
    client.sendall(b"X\0\0\0\x04")
    client.close()


def scram(client):
    """RFC 5802 without channel binding. The key is derived once: the figure is to be the server's time."""
    authentication(client)
    bare = "n=,r=" + base64.b64encode(os.urandom(18)).decode()
    first = f"n,,{bare}".encode()
    send(client, b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first)
    challenge = authentication(client)[4:].decode()
    nonce, salt, iterations = (part[2:] for part in challenge.split(","))
    key = client_key(salt, int(iterations))
    bound = f"c=biws,r={nonce}"
    said = f"{bare},{challenge},{bound}".encode()
    signature = hmac.digest(hashlib.sha256(key).digest(), said, "sha256")
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature))).decode()
    send(client, b"p", f"{bound},p={proof}".encode())


@functools.cache
def salted_password(salt, iterations):
    return hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), base64.b64decode(salt), iterations)


def client_key(salt, iterations):
    return hmac.digest(salted_password(salt, iterations), b"Client Key", "sha256")


def verifier():
    """The secret as PostgreSQL stores it: no proxy has to derive anything, and its salt is always the same."""
    salt, iterations = base64.b64encode(b"bench bench bench").decode(), 4096
    stored = hashlib.sha256(client_key(salt, iterations)).digest()
    server = hmac.digest(salted_password(salt, iterations), b"Server Key", "sha256")
    keys = ":".join(base64.b64encode(key).decode() for key in (stored, server))
    return f"SCRAM-SHA-256${iterations}:{salt}${keys}"


def send(client, tag, body):
    client.sendall(message(tag, body))


def message(tag, body):
    return tag + struct.pack("!i", 4 + len(body)) + body


def authentication(client):
    """The body of an Authentication message."""
    tag, length = struct.unpack("!ci", exactly(client, 5))
    body = exactly(client, length - 4)
    if tag != b"R":
        raise Failed(f"a login was refused: {body!r}")
    return body


def exactly(client, count):
    seen = b""
    while len(seen) < count:
        some = client.recv(count - len(seen))
        if not some:
            raise Failed("a login was cut off")
        seen += some
    return seen


def query(client, text):
    """How many bytes the answer has."""
    send(client, b"Q", text.encode() + b"\0")
    return until_ready(client)


def until_ready(client):
    """Reads up to ReadyForQuery, and counts. It is the last message of a turn, so it ends what has come."""
    count, end = 0, b""
    while not end.endswith(READY):
        size = client.recv_into(BUFFER)
        end = (end + BUFFER[max(0, size - 400) : size])[-400:]
        count += size
        if not size or b"\0VERROR\0" in end or b"\0VFATAL\0" in end or b"SFATAL\0" in end:
            raise Failed(f"a client was turned away: {bytes(end)!r}")
    return count


def copy_in(client, text, data, times):
    """How many bytes were sent, as `data` over and over: whole CopyData messages."""
    send(client, b"Q", text.encode() + b"\0")
    tag, length = struct.unpack("!ci", exactly(client, 5))
    body = exactly(client, length - 4)
    if tag != b"G":
        raise Failed(f"no COPY: {body!r}")
    for _ in range(times):
        client.sendall(data)
    send(client, b"c", b"")
    until_ready(client)
    return len(data) * times
