#!/usr/bin/env python3
"""A name server on loopback that knows one name, for tests: nameserver.py NAME ADDRESS

Answers A questions for NAME with ADDRESS, other kinds with nothing, other names with "no such name". Ends by itself.
"""

import socket
import struct
import sys

LIMIT_SECONDS = 120
A, NO_SUCH_NAME = 1, 3


def answer(question, name, address):
    """The response to a DNS message with one question (RFC 1035, 4.1)."""
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode())
        at += 1 + question[at]
    (kind,) = struct.unpack("!H", question[at + 1 : at + 3])
    asked = question[12 : at + 5]
    known = ".".join(labels).lower() == name
    record = b""
    if known and kind == A:
        # The name is the one at offset 12; class IN; for a minute.
        record = struct.pack("!HHHIH", 0xC00C, A, 1, 60, 4) + socket.inet_aton(address)
    flags = 0x8180 | (0 if known else NO_SUCH_NAME)
    return question[:2] + struct.pack("!HHHHH", flags, 1, 1 if record else 0, 0, 0) + asked + record


def main(name, address):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    server.settimeout(LIMIT_SECONDS)
    print("ready", flush=True)
    while True:
        question, client = server.recvfrom(1500)
        server.sendto(answer(question, name, address), client)


if __name__ == "__main__":
    main(sys.argv[1].lower(), sys.argv[2])
