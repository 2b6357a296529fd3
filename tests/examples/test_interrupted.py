"""Examples end when somebody presses Ctrl-C, also where they wait for a thread of their own, and leave nothing on the broker."""

import signal
from pathlib import Path

from patterns.sync import Admin
from patterns.wire.errors import ZbrokerError
from tests.processes import Broker, Program, until


def members(admin: Admin, stream: str) -> int:
    try:
        found: int = admin.show_group(stream, "packers")["members"]
    except ZbrokerError:
        return 0  # it is not there yet
    return found


def test_orders_that_are_interrupted_while_one_worker_sleeps_end(tmp_path: Path) -> None:
    with (
        Broker(tmp_path) as broker,
        Admin(broker.url, timeout_s=30) as admin,
        Program(["examples/order_processing.py"], tmp_path / "orders.log", {"ZBROKER_URL": broker.url}) as orders,
    ):
        orders.line()  # the first worker has died; the order that it left is free after two seconds
        until(lambda: members(admin, f"orders-{orders.process.pid}") == 2)
        orders.signal(signal.SIGINT)
        assert orders.wait() == 130, orders.errors
        assert admin.list_streams() == []
