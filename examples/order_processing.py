"""Orders that take from the stock once each, whatever dies: SQLite knows what is done, and the token of a lease keeps out who was too slow.

A group delivers at least once. It is once in the database, because what an order does, and that it is done, is one transaction, and
only the newest lease of a message may make it: a worker that slept too long finds a higher token in its row, and changes nothing.
"""

import multiprocessing
import os
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from patterns.sync import Admin, Consumer, Delivery, Producer
from patterns.wire.errors import StaleLease

GROUP = "packers"
ORDERS = 100
SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE stock (sku TEXT PRIMARY KEY, in_stock INTEGER NOT NULL);
CREATE TABLE orders (offset INTEGER PRIMARY KEY, token INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0);
INSERT INTO stock VALUES ('bolt', 1000000), ('nut', 1000000);
"""


class Order(msgspec.Struct):
    sku: str
    quantity: int


def make_database(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.executescript(SCHEMA)
    database.close()


class Warehouse:
    """The database, for one worker. An order is known by its offset: that is the same each time that it is delivered."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, timeout=30)

    def claim(self, delivery: Delivery) -> bool:
        """Whether this lease may work on the order: it is not done, and nobody has a newer one."""
        with self._database as database:
            database.execute(
                "INSERT INTO orders (offset, token) VALUES (?, ?) ON CONFLICT (offset) DO UPDATE "
                "SET token = excluded.token WHERE excluded.token > token AND NOT done",
                (delivery.offset, delivery.token),
            )
            held = database.execute(
                "SELECT 1 FROM orders WHERE offset = ? AND token = ? AND NOT done", (delivery.offset, delivery.token)
            )
            return held.fetchone() is not None

    def finish(self, delivery: Delivery, order: Order) -> bool:
        """What the order does, and that it is done, both or neither. False: somebody else has a newer lease, or did it."""
        with self._database as database:
            fenced = database.execute(
                "UPDATE orders SET done = 1 WHERE offset = ? AND token = ? AND NOT done",
                (delivery.offset, delivery.token),
            )
            if not fenced.rowcount:
                return False
            database.execute("UPDATE stock SET in_stock = in_stock - ? WHERE sku = ?", (order.quantity, order.sku))
        return True

    def taken(self) -> tuple[int, int]:
        """Orders that are done, and how much is gone from the stock."""
        (done,) = self._database.execute("SELECT count(*) FROM orders WHERE done").fetchone()
        (left,) = self._database.execute("SELECT sum(in_stock) FROM stock").fetchone()
        return done, 2_000_000 - left

    def close(self) -> None:
        self._database.close()


def pack(delivery: Delivery) -> None:
    """Here somebody packs a parcel, for as long as it takes."""


def work(consumer: Consumer, path: Path, pack: Callable[[Delivery], None] = pack) -> tuple[int, int]:
    """Until all is done, or nothing comes any more; returns how many orders were done here, and how many were left to somebody else."""
    warehouse, done, left = Warehouse(path), 0, 0
    for delivery in consumer:
        is_ours = warehouse.claim(delivery)
        if is_ours:
            pack(delivery)
            is_ours = warehouse.finish(delivery, delivery.body)
        done, left = done + is_ours, left + (not is_ours)
        try:
            delivery.ack()
        except StaleLease:
            pass  # we took too long, and another worker has it
        if warehouse.taken()[0] == ORDERS:
            break
    warehouse.close()
    return done, left


def careless(address: str, stream: str, path: Path) -> None:
    """Does some orders, and dies when one is in the database and not acked."""
    done = 0

    def dies(delivery: Delivery) -> None:
        nonlocal done
        done += 1
        if done == 20:
            Warehouse.finish(Warehouse(path), delivery, delivery.body)
            os._exit(1)

    with Consumer(address, stream, group=GROUP, type=Order) as consumer:
        work(consumer, path, dies)


def slow(address: str, stream: str, path: Path, has_one: threading.Event, may_go_on: threading.Event) -> int:
    """Begins with an order and sleeps, far longer than it said; returns how many orders it had to leave to others."""

    def sleeps(delivery: Delivery) -> None:
        if not has_one.is_set():
            has_one.set()
            may_go_on.wait()

    try:
        with Consumer(
            address, stream, group=GROUP, type=Order, credit=1, processing_max_s=0.5, idle_timeout_s=1.0
        ) as consumer:
            return work(consumer, path, sleeps)[1]
    finally:
        has_one.set()  # whatever hindered it, nobody waits for it in vain


def main(address: str, path: Path) -> None:
    stream = f"orders-{os.getpid()}"
    make_database(path)
    with Producer(address, stream) as producer:
        producer.send_many(Order(("bolt", "nut")[number % 2], number % 7) for number in range(ORDERS))
    try:
        work_off(address, stream, path)
    finally:
        with Admin(address) as admin:
            admin.delete_stream(stream)  # this program's own


def work_off(address: str, stream: str, path: Path) -> None:
    victim = multiprocessing.get_context("spawn").Process(target=careless, args=(address, stream, path))
    victim.start()
    victim.join()
    print("a worker has died with an order that is done and not acked")

    has_one, may_go_on = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            sleeper = pool.submit(slow, address, stream, path, has_one, may_go_on)
            has_one.wait()
            with Consumer(address, stream, group=GROUP, type=Order, idle_timeout_s=30.0) as consumer:
                work(consumer, path)
        finally:
            may_go_on.set()  # all is done, and now the one that slept goes on with what it thinks is its own; at Ctrl-C, too
    warehouse = Warehouse(path)
    done, taken = warehouse.taken()
    warehouse.close()
    print("orders that the one that slept was kept from doing again:", sleeper.result())
    print(f"orders: {ORDERS}, done: {done}")
    print("taken from the stock as ordered:", taken == sum(number % 7 for number in range(ORDERS)))


if __name__ == "__main__":
    try:
        with tempfile.TemporaryDirectory() as folder:
            main(
                sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ZBROKER_URL", "zb://localhost"),
                Path(folder) / "orders.db",
            )
    except KeyboardInterrupt:
        raise SystemExit(130) from None
