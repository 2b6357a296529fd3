"""One stream of orders, two groups: one writes e-mails, one keeps an audit log. Each gets every order, at its own pace.

An e-mail that fails three times does not hold up the others: it becomes a dead letter, and when the mail server is mended it is sent back to
the group that failed, and to no other.
"""

import os
import sys
import threading
import time
from collections.abc import Callable

from patterns.sync import Admin, Consumer, GroupConfig, Producer

ORDERS = 12
TRIES = 3


class MailServer:
    """Takes mail, but for one domain while that is down."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.is_broken = True

    def send(self, order: dict[str, object]) -> None:
        if self.is_broken and str(order["email"]).endswith("@example.net"):
            raise ConnectionError("451 example.net does not answer")
        self.sent.append(int(str(order["number"])))


def write_mails(consumer: Consumer, server: MailServer) -> None:
    for delivery in consumer:
        try:
            server.send(delivery.body)
        except ConnectionError:
            delivery.nack()  # again, after a while as the group says, and TRIES times at most
        else:
            delivery.ack()


def keep_log(consumer: Consumer, log: list[int]) -> None:
    for delivery in consumer:
        log.append(delivery.body["number"])
        delivery.ack()


def wait_for(done: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)


def main(address: str) -> None:
    orders = f"orders-{os.getpid()}-{time.monotonic_ns()}"
    dead = f"{orders}-undelivered"
    with Admin(address) as admin:
        admin.create_group(GroupConfig(orders, "email", max_deliveries=TRIES, backoff_s=[0.05, 0.1], dead_letter=dead))
        admin.create_group(GroupConfig(orders, "audit"))
        try:
            serve(address, admin, orders, dead)
        finally:
            admin.delete_stream(orders)  # this program's own
            admin.delete_stream(dead)


def serve(address: str, admin: Admin, orders: str, dead: str) -> None:
    server, log = MailServer(), list[int]()
    with Consumer(address, orders, group="email") as mails, Consumer(address, orders, group="audit") as audits:
        threads = [
            threading.Thread(target=write_mails, args=(mails, server)),
            threading.Thread(target=keep_log, args=(audits, log)),
        ]
        for thread in threads:
            thread.start()
        with Producer(address, orders) as producer:
            domains = ("example.com", "example.org", "example.net")
            producer.send_many(
                {"number": number, "email": f"customer{number}@{domains[number % 3]}"} for number in range(ORDERS)
            )
        bad = ORDERS // 3
        wait_for(lambda: len(log) == ORDERS and len(server.sent) == ORDERS - bad and pending(admin, dead) == bad)
        print(f"audited: {len(log)}, mailed: {len(server.sent)}")
        for letter in admin.show_dead(dead)["letters"]:
            print(f"dead: {letter['body']}, {letter['reason']} after {letter['attempts']} attempts")

        server.is_broken = False
        print("sent back:", admin.redrive_dead(dead)["redriven"])
        wait_for(lambda: len(server.sent) == ORDERS)
        print(f"audited: {len(log)}, mailed: {len(server.sent)}, dead letters: {pending(admin, dead)}")
        mails.close()
        audits.close()
        for thread in threads:
            thread.join()
    print("each order once in both:", sorted(log) == sorted(server.sent) == list(range(ORDERS)))


def pending(admin: Admin, dead: str) -> int:
    rows = [row for row in admin.list_dead() if row["stream"] == dead]
    return int(rows[0]["pending"]) if rows else 0


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ZBROKER_URL", "zb://localhost"))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
