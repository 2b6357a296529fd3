"""A service that streams the rows of a table: peer to peer by default, through a broker with `python streamed_rows.py zb://localhost`.

The rows leave as they are read, and no further ahead than the one who asked takes them: neither side holds the table.
"""

import sqlite3
import sys
import threading
from collections.abc import Iterator

import msgspec

from patterns.sync import Replier, Requester
from patterns.wire.errors import ApplicationError

ROWS = 20_000
closed = threading.Event()
read = 0


class Query(msgspec.Struct):
    region: str


class Order(msgspec.Struct):
    number: int
    region: str
    total: float


def table() -> sqlite3.Connection:
    orders = sqlite3.connect(":memory:", check_same_thread=False)
    orders.execute("CREATE TABLE orders (number INTEGER, region TEXT, total REAL)")
    orders.executemany("INSERT INTO orders VALUES (?, ?, ?)", ((n, ("eu", "us")[n % 2], n / 4) for n in range(ROWS)))
    return orders


ORDERS = table()


def rows(query: Query) -> Iterator[Order]:
    """Each item is a part of the reply. `finally` runs as soon as nobody wants more."""
    global read
    cursor = ORDERS.execute("SELECT * FROM orders WHERE region = ? ORDER BY number", (query.region,))
    try:
        for row in cursor:
            read += 1
            yield Order(*row)
        if not read:
            raise ApplicationError(f"there is no region {query.region!r}", code="no_such_region")
    finally:
        cursor.close()
        closed.set()


def main(address: str) -> None:
    global read
    with Replier(address, "orders", rows, type=Query) as replier:
        replier.ready()
        threading.Thread(target=replier.serve_forever, daemon=True).start()
        with Requester(address) as requester:
            total = sum(order.total for order in requester.stream("orders", Query("eu"), type=Order))
            print(f"{read} rows of eu, together {total:.0f}")

            read = 0
            closed.clear()
            for order in requester.stream("orders", Query("us"), type=Order):
                if order.total > 1:
                    print("the first above 1:", order)
                    break  # the service is told
            closed.wait(30)
            print("rows read for that:", "a few" if read < 1_000 else read)

            read = 0
            try:
                list(requester.stream("orders", Query("mars")))
            except ApplicationError as error:
                print("refused:", error.code, "-", error.detail)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:7402")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
