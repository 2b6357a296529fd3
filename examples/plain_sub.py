"""A program that has nothing but pyzmq hears what is published through a broker, by a prefix: `[topic, body]` from port 7702."""

import os

import zmq

ADDRESS = os.environ.get("ZBROKER_XPUB", "tcp://127.0.0.1:7702")
PREFIX = b"sensors.cellar."
COUNT = 50


def main() -> None:
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.subscribe(PREFIX)
    socket.connect(ADDRESS)
    seen: dict[str, int] = {}
    for _ in range(COUNT):
        if not socket.poll(30_000):
            raise SystemExit(f"nothing below {PREFIX.decode()!r} came for 30 s: is somebody publishing?")
        topic, _body = socket.recv_multipart()
        seen[topic.decode()] = seen.get(topic.decode(), 0) + 1
    for topic, count in sorted(seen.items()):
        print(f"{topic}: {count}")
    socket.close()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
