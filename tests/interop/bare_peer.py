"""What test_bare.py runs: a peer of nothing but pyzmq and the standard library, written from SPEC.md, wholly in JSON.

It does not watch its connections: a PING that is answered by NO_SESSION tells that the broker is another one.
"""

import base64
import hashlib
import itertools
import json
import os
import sys
import time
import zlib

import zmq

QUIET_MS = 200  # so long without a word, and we ask whether anybody is there


def say(**line):
    print(json.dumps(line), flush=True)


class Session:
    """One session over as many sockets as it takes."""

    def __init__(self, url, role, credit=1_000, **hello):
        self.endpoint = url.replace("zb://", "tcp://")
        self.nonce = base64.b64encode(os.urandom(16)).decode()
        self.fixed = {"role": role, "nonce": self.nonce, "codec": "json", "credit_messages": credit, **hello}
        self.socket = None
        self.epoch = None
        self.sessions = self.pongs = self.refusals = 0
        self.leases = []
        self.open()

    def open(self):
        """A new socket, HELLO, READY."""
        while True:
            if self.socket is not None:
                self.socket.close(linger=0)
            self.socket = zmq.Context.instance().socket(zmq.DEALER)
            self.socket.sndhwm = self.socket.rcvhwm = 0
            self.socket.connect(self.endpoint)
            hello = {"versions": [1, 1], "credit_bytes": 1 << 30, **self.fixed}
            if self.epoch is not None:
                hello["resume"] = {"epoch": self.epoch, "sequence": 0, "leases": self.leases}
            self.write("H", hello)
            if not self.socket.poll(2_000):
                continue
            kind, header, *_ = self.socket.recv_multipart()
            if kind == b"ZB1h":
                self.ready = json.loads(header)
                self.epoch = self.ready["epoch"]
                self.sessions += 1
                return
            raise SystemExit(f"refused: {header!r}")

    def write(self, kind, header, bodies=None, columns=None, key=b""):
        frames = [b"ZB1" + kind.encode() + key, json.dumps(header).encode()]
        if bodies is not None:
            frames += [json.dumps(columns).encode() if columns else b"", json.dumps(bodies).encode()]
        self.socket.send_multipart(frames)

    def read(self):
        """The next message of the role: kind, header, columns, bodies. None after a new session began."""
        while True:
            if not self.socket.poll(QUIET_MS):
                self.write("I", {"token": self.pongs + 1})
                if not self.socket.poll(10 * QUIET_MS):
                    continue
            first, second, *rest = self.socket.recv_multipart()
            kind, header = first[3:4].decode(), json.loads(second)
            if kind == "I":
                self.write("i", {"token": header.get("token", 0)})
            elif kind == "i":
                self.pongs += 1
            elif kind in "NG":
                self.refusals += kind == "N"
                self.open()
                return None
            elif kind != "C":  # what we send at once is far below the first credit
                columns = json.loads(rest[0]) if rest and rest[0] else {}
                return kind, header, columns, json.loads(rest[1]) if len(rest) > 1 else []

    def until(self, kind):
        """The next message of that kind. An error ends the program."""
        while (message := self.read()) is None or message[0] != kind:
            if message is not None and message[0] == "E":
                raise SystemExit(f"ERROR {message[1]}")
        return message

    def close(self):
        """GOODBYE both ways."""
        self.write("G", {})
        while self.socket.poll(5_000) and self.socket.recv_multipart()[0] != b"ZB1G":
            pass
        self.socket.close(linger=0)


def request(url, service, count):
    session = Session(url, "requester")
    replies = []
    for number in range(1, int(count) + 1):
        session.write("Q", {"id": number, "service": service, "timeout_ms": 5_000, "codec": "json"}, [{"n": number}])
        kind, header, _, bodies = session.read()
        replies.append(bodies[0] if kind == "q" else {"error": header["name"], "code": header.get("code", "")})
    say(replies=replies)
    session.close()


def reply(url, service, count):
    session = Session(url, "replier", credit=1)
    session.write("O", {"id": 1, "service": service})
    session.until("o")
    say(ready=True)
    for _ in range(int(count)):
        _, header, _, (body,) = session.until("Q")
        if body["n"] == 3:
            error = {"number": 700, "name": "APPLICATION_ERROR", "code": "no_three", "detail": "three is too much"}
            session.write("E", {**error, "scope": "request", "id": header["id"]})
        else:
            session.write("q", {"id": header["id"], "codec": "json"}, [{"twice": body["n"] * 2}])
    session.close()


def publish(url, topic, count):
    session = Session(url, "publisher")
    while session.until("w")[1].get("subscribers", 0) < 1:
        pass
    channel = zlib.crc32(topic.split(".")[0].encode()) % 64
    name = base64.b64encode(hashlib.sha256(base64.b64decode(session.nonce)).digest()[:16]).decode()
    for n in range(int(count)):
        header = {"publisher": name, "sequence": n, "count": 1, "codec": "json", "topic": topic}
        session.write("P", header, [{"n": n}], key=bytes([channel]))
    session.close()


def subscribe(url, pattern, count):
    session = Session(url, "subscriber", credit=50)
    session.write("S", {"id": 1, "pattern": pattern})
    session.until("s")
    say(ready=True)
    seen, lost = [], 0
    while len(seen) < int(count):
        kind, header, _, bodies = session.read()
        if kind == "l":
            lost = header.get("messages", 0)
        elif kind == "P":
            seen += bodies  # one topic only
            session.write("C", {"messages": len(seen) + 50, "bytes": 1 << 30})
    say(seen=seen, lost=lost)
    session.close()


def produce(url, stream, count):
    """One batch at a time, so what is sent again is one batch."""
    session = Session(url, "producer", name="bare")
    accepted = session.ready["producer"].get("sequence", 0)
    duplicates = 0
    for n in range(int(count)):
        while True:
            producer = session.ready["producer"]
            header = {
                "stream": stream,
                "producer": producer["id"],
                "producer_epoch": producer["epoch"],
                "codec": "json",
            }
            header |= {"sequence": accepted + 1, "previous": accepted, "count": 1}
            session.write("A", header, [{"n": n}], {"keys": [f"k{n}"]})
            message = session.read()
            if message is None:
                continue  # a new session: the same batch again
            kind, header, _, _ = message
            if kind != "a":
                raise SystemExit(f"ERROR {header}")
            accepted = header["sequence"]
            duplicates += len(header.get("duplicates", []))
            say(offset=header["offsets"][0])
            break
    say(sessions=session.sessions, refusals=session.refusals, duplicates=duplicates)
    session.close()


def identify(url, stream, *batches):
    """Messages with ids, all batches at once; where each message lies, by what the CONFIRMs say (SPEC.md 9.1)."""
    session, batches = Session(url, "producer"), [json.loads(batch) for batch in batches]
    producer = session.ready["producer"]
    fixed = {"stream": stream, "producer": producer["id"], "producer_epoch": producer["epoch"], "codec": "json"}
    for number, ids in enumerate(batches, 1):
        header = {**fixed, "sequence": number, "previous": number - 1, "count": len(ids)}
        session.write("A", header, [{"id": one} for one in ids], {"ids": ids})
    places, exceptions, duplicates = [], [], []
    while len(places) < len(batches):
        header = session.until("a")[1]
        exceptions += header.get("exceptions", [])
        duplicates += header.get("duplicates", [])
        for first in header.get("offsets", []):
            number, following = len(places) + 1, itertools.count(first)
            found = [one[1:] for one in exceptions if one[0] == number]
            known = {place + more: offset + more for place, offset, count in found for more in range(count)}
            places.append([known[at] if at in known else next(following) for at in range(len(batches[number - 1]))])
    say(places=places, duplicates=duplicates)
    session.close()


def consume(url, stream, group, count):
    session = Session(url, "consumer", credit=10)
    join = {"id": 1, "stream": stream, "group": group, "start": "first", "mode": "slices"}
    session.write("J", join)
    acked, settling, number, granted, stale = set(), {}, 0, 10, 0
    while len(acked) < int(count):
        message = session.read()
        if message is None:  # what was told on the old socket is void: join, and tell it again
            session.write("J", join)
            granted = 10
            for header, _ in settling.values():
                session.write("K", header)
            continue
        kind, header, columns, bodies = message
        if kind == "D":
            first = header.get("offset", 0)
            offsets = [first + more for more in columns.get("offsets", range(len(bodies)))]
            number += 1
            settle = {"id": number, "lease": header["lease"], "action": "ack", "ranges": [[at, at] for at in offsets]}
            settling[number] = (settle, [body["n"] for body in bodies])
            session.leases = [told["lease"] for told, _ in settling.values()]
            session.write("K", settle)
            granted += len(bodies)
            session.write("C", {"messages": granted, "bytes": 1 << 30})
        elif kind == "k":
            _, numbers = settling.pop(header["id"])
            session.leases = [told["lease"] for told, _ in settling.values()]
            stale += header.get("stale", 0)  # told twice over a lost connection, and on disk since the first time
            acked |= set(numbers)
            say(acked=len(acked))
        elif kind == "E":
            raise SystemExit(f"ERROR {header}")
    say(done=sorted(acked), stale=stale, sessions=session.sessions, refusals=session.refusals)
    session.close()


def status(url):
    session = Session(url, "admin")
    session.write("M", {"id": 1, "verb": "status", "arguments": {}})
    say(status=session.until("m")[3][0])
    began, pongs = time.monotonic(), session.pongs
    while session.pongs < pongs + 2 and time.monotonic() - began < 10:
        session.write("I", {"token": 1})
        session.write("M", {"id": 2, "verb": "status", "arguments": {}})
        session.until("m")
    say(pongs=session.pongs)
    session.close()


def packed(url):
    """One dialogue in msgpack, byte by byte: a request to the service "double" and its reply."""
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.connect(url.replace("zb://", "tcp://"))
    hello = b"\x85\xa4role\xa9requester\xa5nonce\xc4\x10" + os.urandom(16) + b"\xa5codec\xa7msgpack"
    socket.send_multipart([b"ZB1H", hello + b"\xafcredit_messages\x64\xaccredit_bytes\xce\x00\x10\x00\x00"])
    assert socket.poll(10_000)
    kind, header = socket.recv_multipart()
    assert kind == b"ZB1h", (kind, header)
    assert b"\xa7version\x01" in header
    ask = b"\x84\xa2id\x01\xa7service\xa6double\xaatimeout_ms\xcd\x13\x88\xa5codec\xa7msgpack"
    socket.send_multipart([b"ZB1Q", ask, b"", b"\x91\x81\xa1n\x15"])
    assert socket.poll(10_000)
    kind, header, _, payload = socket.recv_multipart()
    say(kind=kind.decode(), same=b"\xa2id\x01" in header, payload=payload.hex())
    socket.send_multipart([b"ZB1G", b"\x80"])
    assert socket.poll(10_000)
    say(goodbye=socket.recv_multipart()[0].decode())
    socket.close(linger=0)


VERBS = {
    verb.__name__: verb for verb in (request, reply, publish, subscribe, produce, identify, consume, status, packed)
}

if __name__ == "__main__":
    VERBS[sys.argv[1]](*sys.argv[2:])
