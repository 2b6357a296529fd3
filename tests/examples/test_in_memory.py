"""Our own services as their users may test them: no broker, no port, no waiting. The same programs run as programs in test_examples.py."""

import asyncio
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from patterns.sync import Consumer, Producer
from patterns.wire.errors import StaleLease

EXAMPLES = Path(__file__).parents[2] / "examples"
README = (EXAMPLES.parent / "README.md").read_text()


def example(name: str) -> ModuleType:
    """A program of examples/, as a module of its own for each test."""
    found = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # msgspec looks up annotations there
    found.loader.exec_module(module)
    return module


def test_publish_subscribe(zbroker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    example("publish_subscribe").main()
    assert capsys.readouterr().out.splitlines() == [
        "sensors.cellar.temperature: 1000",
        "sensors.roof.temperature: 1000",
        "lost: 0",
    ]


def test_the_test_of_the_readme(pytester: pytest.Pytester) -> None:
    (block,) = [found for found in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "def test_" in found]
    pytester.makepyfile(block)
    options = ("-p", "zbroker.testing.plugin", "-p", "no:cacheprovider")
    pytester.runpytest_inprocess(*options).assert_outcomes(passed=1)
    pytester.runpytest_inprocess(*options, "--zbroker", "peer").assert_outcomes(skipped=1)


@pytest.mark.zbroker("memory", "peer")
def test_streamed_rows(zbroker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    example("streamed_rows").main(zbroker.address("orders"))
    assert "rows read for that: a few" in capsys.readouterr().out


def test_the_asyncio_gateway(zbroker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(example("gateway_aio").main(zbroker.url))
    assert capsys.readouterr().out.splitlines()[0] == "{'sku': 7, 'in_stock': 12, 'price': 9.5}"


def test_a_burst_is_worked_off_and_nothing_is_lost(zbroker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    example("burst").main(zbroker.url, 50_000, 1_000_000)
    assert capsys.readouterr().out.splitlines() == ["sent, and on disk: 50000 messages", "lost: 0, worked on twice: 0"]


def test_dead_letters_go_back_to_the_group_that_failed(zbroker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    example("fan_out").main(zbroker.url)
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "sent back: 4",
        "audited: 12, mailed: 12, dead letters: 0",
        "each order once in both: True",
    ]


def test_the_way_of_a_request_is_looked_up_in_captured_lines(zbroker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    example("log_tracing").main(zbroker.url)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "replayed: .gateway.info request taken",
        "replayed: .orders.info order booked",
        "replayed: .billing.error no such customer",
        "lines in the stream: 1500, published: 1500",
    ]


# -- order_processing: what takes a dead machine and half a minute elsewhere -----------------------------------------


@pytest.fixture
def orders(tmp_path: Path) -> Any:
    module = example("order_processing")
    module.make_database(tmp_path / "orders.db")
    return module


def test_who_was_cut_off_with_an_order_cannot_do_it_again(zbroker: Any, orders: Any, tmp_path: Path) -> None:
    with Producer(zbroker.url, "orders") as producer:
        producer.send(orders.Order("bolt", 5))
    mine = orders.Warehouse(tmp_path / "orders.db")
    with Consumer(zbroker.url, "orders", group="packers", type=orders.Order) as gone:
        held = gone.receive(30)
        assert mine.claim(held)
        zbroker.cut(gone)
        zbroker.advance(30)  # its lease ends
        with Consumer(zbroker.url, "orders", group="packers", type=orders.Order, idle_timeout_s=0.1) as other:
            assert orders.work(other, tmp_path / "orders.db") == (1, 0)
        assert mine.finish(held, held.body) is False
        assert mine.taken() == (1, 5)
        zbroker.mend()
        with pytest.raises(StaleLease):
            held.ack(confirm=True)
    mine.close()


def test_an_order_whose_ack_is_lost_is_done_once(zbroker: Any, orders: Any, tmp_path: Path) -> None:
    with Producer(zbroker.url, "orders") as producer:
        producer.send_many(orders.Order("nut", number) for number in range(10))
    with Consumer(zbroker.url, "orders", group="packers", type=orders.Order, idle_timeout_s=0.1) as dying:
        warehouse = orders.Warehouse(tmp_path / "orders.db")
        for delivery in dying:
            assert warehouse.claim(delivery)
            assert warehouse.finish(delivery, delivery.body)
        zbroker.cut(dying)  # none is acked
        zbroker.advance(30)
        with Consumer(zbroker.url, "orders", group="packers", type=orders.Order, idle_timeout_s=0.1) as other:
            assert orders.work(other, tmp_path / "orders.db") == (0, 10)
        assert warehouse.taken() == (10, 45)
        warehouse.close()


def test_orders_survive_a_broker_that_is_killed(zbroker: Any, orders: Any, tmp_path: Path) -> None:
    with Producer(zbroker.url, "orders") as producer:
        producer.send_many(orders.Order("nut", 1) for _ in range(20))
        zbroker.restart()
        producer.send_many(orders.Order("nut", 1) for _ in range(20))
    with Consumer(zbroker.url, "orders", group="packers", type=orders.Order, idle_timeout_s=0.1) as consumer:
        assert orders.work(consumer, tmp_path / "orders.db") == (40, 0)
