"""A service that ends cleanly: SIGTERM or Ctrl-C, and what it has begun is answered, what it has not goes to others."""

import os
import signal
import sys
import threading

from patterns.sync import Replier

ADDRESS = os.environ.get("ZBROKER_URL", "zb://localhost")


def price(body: dict[str, int]) -> dict[str, int]:
    return {"sku": body["sku"], "price": 42}


def main(address: str) -> None:
    replier = Replier(address, "price", price)

    def stop(*_: object) -> None:
        """In a thread: the main one may hold, at this very place, what close() needs."""
        threading.Thread(target=replier.close, args=(20.0,)).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    replier.ready(10.0)
    print(f"price is offered at {replier.address}", flush=True)
    replier.serve_forever()  # until close(); the program ends when the thread has
    print("not offered any more")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ADDRESS)
