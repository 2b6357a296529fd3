"""A program that has nothing but pyzmq publishes to subscribers behind a broker: `[topic, body]` to port 7701."""

import os
import time

import zmq

ADDRESS = os.environ.get("ZBROKER_XSUB", "tcp://127.0.0.1:7701")
SECONDS = 3.0


def main() -> None:
    socket = zmq.Context.instance().socket(zmq.PUB)
    socket.connect(ADDRESS)
    end = time.monotonic() + SECONDS
    reading = 0
    while (
        time.monotonic() < end
    ):  # what a PUB sends before the broker has subscribed, ZeroMQ drops: so it goes on for a while
        for room, celsius in (("cellar", 12), ("attic", 31)):
            socket.send_multipart([f"sensors.{room}.temperature".encode(), b"%d" % (celsius + reading % 3)])
        reading += 1
        time.sleep(0.01)
    print("published:", 2 * reading)
    socket.close(linger=1_000)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
