"""The small programs that the demo runs beside one another: `python -m zbroker.demo.programs NAME ARGUMENTS`.

Each is what a user would write, takes the address as an argument and does not know whether a broker is behind it.
They print JSON lines, which the tour reads.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import zmq

from patterns.sync import Consumer, Producer, Publisher, Replier, Requester, SendManyError, Subscriber
from patterns.wire.errors import ZbrokerError
from zbroker.demo.airports import Airport, airports, topic_of

_CHUNK: Final = 200  # airports a send_many; then a breath, so that the load lasts a few seconds
_BREATH_S: Final = 0.02


def say(**facts: Any) -> None:
    """One JSON line for the tour."""
    print(json.dumps(facts), flush=True)


def reply(address: str) -> None:
    """A service that knows the airports."""
    known = airports()

    def look_up(code: str) -> Airport:
        return known[code]

    replier = Replier(address, "airport", look_up)
    replier.ready()
    say(address=replier.address)
    replier.serve_forever()


def request(address: str, code: str) -> None:
    """Asks that service."""
    with Requester(address) as requester:
        airport = requester.request("airport", code, timeout_s=5.0, wait_s=5.0)
        say(code=code, name=airport["name"], city=airport["city"])


def subscribe(address: str, pattern: str, count: str) -> None:
    """Counts what a pattern lets through."""
    with Subscriber(address, pattern, idle_timeout_s=5.0) as subscriber:
        subscriber.ready()
        say(ready=True)
        seen, wanted = [], int(count)
        for message in subscriber:
            seen.append(message.body["icao"])
            if len(seen) == wanted:
                break
        say(received=len(seen), lost=subscriber.lost, first=seen[0] if seen else None)


def publish(address: str) -> None:
    """Publishes every airport under its own topic, once somebody listens."""
    with Publisher(address) as publisher:
        say(address=publisher.address)
        publisher.wait_for_subscribers(1, timeout_s=10)
        for airport in airports().values():
            publisher.publish(topic_of(airport), airport)
        publisher.flush()
        say(published=len(airports()))


def produce(address: str, stream: str) -> None:
    """Sends every airport as JSON; says which offset each was confirmed at, through whatever happens to the broker."""
    codes = list(airports())
    with Producer(address, stream, codec="json", timeout_s=20.0) as producer:
        for begin in range(0, len(codes), _CHUNK):
            part = codes[begin : begin + _CHUNK]
            try:
                receipts = producer.send_many([airports()[code] for code in part])
            except SendManyError as error:
                say(error=str(error))
                raise
            say(codes=part, offsets=[receipt.offset for receipt in receipts])
            time.sleep(_BREATH_S)


def consume(address: str, stream: str, group: str, idle_s: str) -> None:
    """Works a stream off as a member of a group that reads msgpack; says what it acked."""
    with Consumer(address, stream, group=group, codec="msgpack", idle_timeout_s=float(idle_s)) as consumer:
        pending: list[tuple[int, str, int]] = []
        for delivery in consumer:
            pending.append((delivery.offset, delivery.body["icao"], delivery.attempt))
            delivery.ack()
            if len(pending) >= _CHUNK:
                say(done=pending)
                pending = []
        say(done=pending)


def watch(endpoint: str, country: str, count: str) -> None:
    """What a program without our library does: pyzmq and json, written from SPEC.md. The broker translates for it."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    socket.connect(endpoint)
    hello = {"role": "subscriber", "codec": "json", "nonce": "ZGVtby13YXRjaC0wMDAwMQ=="}
    credit = {"credit_messages": 10**6, "credit_bytes": 10**9}
    socket.send_multipart([b"ZB1H", json.dumps(hello | credit).encode()])
    seen, wanted = 0, int(count)
    while seen < wanted and socket.poll(5_000):
        kind, _header, *rest = socket.recv_multipart()
        if kind == b"ZB1h":
            subscription = {"id": 1, "pattern": f"airports.{country}.>"}
            socket.send_multipart([b"ZB1S", json.dumps(subscription).encode()])
        elif kind == b"ZB1s":
            say(ready=True)
        elif kind[:4] == b"ZB1P":
            seen += sum(body["country"] == country for body in json.loads(rest[1]))  # batches come whole
    socket.send_multipart([b"ZB1G", b"{}"])
    say(received=seen)
    socket.close(linger=1_000)


def overhear(endpoint: str, country: str, count: str) -> None:
    """What any ZeroMQ program does at port 7702: a SUB socket, and a prefix of bytes."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
    socket.subscribe(f"airports.{country}.".encode())
    socket.connect(endpoint)
    seen, wanted = 0, int(count)
    while seen < wanted and socket.poll(10_000):
        _topic, _body = socket.recv_multipart()
        seen += 1
    say(received=seen)
    socket.close()


PROGRAMS: Final[dict[str, Callable[..., None]]] = {
    program.__name__: program for program in (reply, request, subscribe, publish, produce, consume, watch, overhear)
}


def main(arguments: list[str]) -> int:
    """Run one program by name."""
    name, *rest = arguments
    try:
        PROGRAMS[name](*rest)
    except ZbrokerError as error:
        print(f"{name}: {error.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
