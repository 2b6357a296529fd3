"""A typed service and who asks it: peer to peer by default, through a broker with `python request_reply.py zb://localhost`."""

import sys
import threading
import time

import msgspec

from patterns.sync import Replier, Requester
from patterns.wire.errors import ApplicationError, TimedOut, ValidationFailed


class Order(msgspec.Struct):
    sku: int
    quantity: int = 1


class Price(msgspec.Struct):
    sku: int
    total: float


STOCK = {7: 9.5, 8: 20.0}
COUNTED_BY_HAND = 8


def serve(replier: Replier) -> None:
    for request in replier:
        order = request.body  # an Order: what is not one was refused already
        if order.sku == COUNTED_BY_HAND:
            time.sleep(1.0)
        if order.sku in STOCK:
            request.reply(Price(order.sku, STOCK[order.sku] * order.quantity))
        else:
            request.fail("no_such_sku", f"sku {order.sku} is unknown; there are {sorted(STOCK)}")


def main(address: str) -> None:
    with Replier(address, "price", type=Order) as replier:
        replier.ready()
        threading.Thread(target=serve, args=(replier,), daemon=True).start()
        with Requester(address) as requester:
            print(requester.request("price", Order(7, quantity=3), timeout_s=5.0, type=Price))
            try:
                requester.request("price", {"sku": 99})
            except ApplicationError as error:
                print("refused:", error.code, "-", error.detail)
            try:
                requester.request("price", {"sku": "seven"})
            except ValidationFailed as error:
                print("not an order:", error.detail)
            try:
                requester.request("price", {"sku": COUNTED_BY_HAND}, timeout_s=0.1)
            except TimedOut as error:
                print("too late:", error.detail)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:7401")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
