"""Every program that people copy is run: the blocks of README.md, and the files of examples/."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from patterns.sync import Admin, Requester
from tests.processes import LONG, Program, program, until
from tests.processes import Broker as PlainBroker
from zbroker.demo.children import Broker

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("examples") / "data")
    broker.start()
    yield broker
    broker.stop()


def run(program: list[str], broker: Broker) -> str:
    environment = os.environ | {"ZBROKER_URL": broker.url}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *program], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert done.returncode == 0, f"after {time.monotonic() - began:.1f} s: {done.stderr[-3000:]}"
    return done.stdout


def run_example(program: str, broker: Broker) -> str:
    """An example leaves nothing behind on its broker, so another run begins as this one did."""
    with Admin(broker.url, timeout_s=30) as admin:
        before = [row["name"] for row in admin.list_streams()]
        said = run(program.split(), broker)
        assert [row["name"] for row in admin.list_streams()] == before
    return said


def run_block(number: int, broker: Broker, tmp_path: Path) -> str:
    program = tmp_path / "block.py"
    program.write_text(BLOCKS[number].replace("zb://localhost", broker.url))
    return run([os.fspath(program)], broker)


def test_readme_has_fourteen_programs() -> None:
    assert len(BLOCKS) == 14


def test_readme_stores_and_forwards(broker: Broker, tmp_path: Path) -> None:
    source = next(block for block in BLOCKS if "open_journal" in block)
    there = source.replace("zb://localhost", broker.url).replace('"outbox"', repr(os.fspath(tmp_path / "outbox")))
    (tmp_path / "block.py").write_text(there)
    said = run([os.fspath(tmp_path / "block.py")], broker)
    assert said.splitlines() == ["on this disk; its offset in the stream: None", "not forwarded yet: 0"]


def test_readme_asyncio_and_a_streamed_reply(broker: Broker, tmp_path: Path) -> None:
    assert run_block(4, broker, tmp_path) == "[0, 2, 4]\n"
    assert run_block(5, broker, tmp_path) == "{'n': 0}\n{'n': 1}\n{'n': 2}\n"


def test_readme_catches_an_error(broker: Broker, tmp_path: Path) -> None:
    said = run_block(6, broker, tmp_path)
    assert said.startswith("nobody there: ")
    assert "nosuch" in said


def test_readme_gives_back_and_puts_aside(broker: Broker, tmp_path: Path) -> None:
    said = run_block(7, broker, tmp_path).splitlines()
    assert sorted(said) == ["job 1 done at attempt 2", "job 3 done at attempt 2"]
    assert Admin(broker.url).status()["groups"]["jobs/workers"]["dead"] == 1


def test_readme_publishes_without_a_broker(broker: Broker, tmp_path: Path) -> None:
    assert run_block(8, broker, tmp_path) == "hello\n"


def test_readme_shows_dead_letters_and_sends_them_back(broker: Broker, tmp_path: Path) -> None:
    assert run_block(9, broker, tmp_path).splitlines() == ['no address mails 1 {"to":"?"}']
    commands = re.findall(r"^    zbroker (dead .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    listed, shown, _, all_shown = (
        run(["-m", "zbroker", *command.split()], broker).splitlines() for command in commands
    )
    assert listed[1].split()[:4] == ["mails-dead", "1", "1", "0"]
    assert '{"to":"?"}' in shown[-1]
    assert "sent back" not in shown[-1]
    assert "sent back" in all_shown[-1]
    with Admin(broker.url, timeout_s=30) as admin:
        assert admin.list_dead("mails-dead")[0]["pending"] == 0


def test_readme_request_reply_prints_the_price(broker: Broker, tmp_path: Path) -> None:
    assert run_block(0, broker, tmp_path) == "{'sku': 7, 'price': 42}\n"


def test_readme_publish_subscribe_loses_nothing(broker: Broker, tmp_path: Path) -> None:
    assert run_block(1, broker, tmp_path).splitlines() == [
        "orders.eu.created {'order': 1}",
        "orders.us.created {'order': 2}",
        "lost: 0",
    ]


def test_readme_work_queue_sums_up(broker: Broker, tmp_path: Path) -> None:
    lines = run_block(3, broker, tmp_path).splitlines()
    assert lines == ["on disk, offsets 0 to 999", f"sum of all invoices: {sum(range(1000))}"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("what", ["README.md", "examples/service.py"])
def test_a_service_ends_cleanly(broker: Broker, tmp_path: Path, what: str, number: int) -> None:
    source = BLOCKS[2] if what == "README.md" else (ROOT / what).read_text()
    with program(source.replace("zb://localhost", broker.url), tmp_path) as service:
        with Requester(broker.url) as requester:
            assert requester.request("price", {"sku": 7}, timeout_s=60, wait_s=30) == {"sku": 7, "price": 42}
        service.signal(number)
        assert service.wait() == 0
        assert service.errors == ""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to see that it has come to wait")
def test_ctrl_c_ends_an_example_without_a_traceback(tmp_path: Path) -> None:
    with Program(["examples/plain_sub.py"], tmp_path / "err", {"ZBROKER_XPUB": "tcp://127.0.0.1:1"}) as waiting:
        until(lambda: "ZMQbg/IO" in _threads_of(waiting.process.pid), what="its socket")
        waiting.signal(signal.SIGINT)
        assert waiting.wait() == 130
        assert waiting.errors == ""


def _threads_of(pid: int) -> str:
    return "".join(one.read_text() for one in Path(f"/proc/{pid}/task").glob("*/comm"))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:7401", "broker"])
def test_request_reply_gives_each_outcome(broker: Broker, address: str) -> None:
    said = run(["examples/request_reply.py", broker.url if address == "broker" else address], broker)
    assert [line.split(":")[0] for line in said.splitlines()] == [
        "Price(sku=7, total=28.5)",
        "refused",
        "not an order",
        "too late",
    ]


@pytest.mark.parametrize("address", ["peers", "broker"])
def test_the_asyncio_gateway_gives_each_outcome(broker: Broker, address: str) -> None:
    said = run(["examples/gateway_aio.py", *([broker.url] if address == "broker" else [])], broker).splitlines()
    assert said[:2] == ["{'sku': 7, 'in_stock': 12, 'price': 9.5}", "refused: no_price"]
    assert [line.split(":")[0] for line in said[2:]] == ["too late"]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:7402", "broker"])
def test_streamed_rows_come_whole_or_as_far_as_wanted(broker: Broker, address: str) -> None:
    said = run(["examples/streamed_rows.py", broker.url if address == "broker" else address], broker).splitlines()
    assert said == [
        "10000 rows of eu, together 24997500",
        "the first above 1: Order(number=5, region='us', total=1.25)",
        "rows read for that: a few",
        "refused: no_such_region - there is no region 'mars'",
    ]


def test_publish_subscribe_receives_what_matches(broker: Broker) -> None:
    said = run(["examples/publish_subscribe.py"], broker).splitlines()
    assert said == ["sensors.cellar.temperature: 1000", "sensors.roof.temperature: 1000", "lost: 0"]


def test_plain_programs_hear_one_another_through_a_broker(tmp_path: Path) -> None:
    ports = ("--xsub", "tcp://127.0.0.1:0", "--xpub", "tcp://127.0.0.1:0")
    with PlainBroker(tmp_path, *ports, durable=False) as broker, Admin(broker.url, timeout_s=30) as admin:
        places = {f"ZBROKER_{name.upper()}": broker.addresses[name] for name in ("xsub", "xpub")}
        command = [sys.executable, "examples/plain_sub.py"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | places) as listening:
            until(lambda: admin.status()["plain"]["prefixes"] == 1)
            said = subprocess.run(
                [sys.executable, "examples/plain_pub.py"],
                stdout=subprocess.PIPE, text=True, timeout=60, check=True, env=os.environ | places,
            ).stdout  # fmt: skip
            heard = listening.communicate(timeout=60)[0]
    assert said.startswith("published: ")
    assert heard == "sensors.cellar.temperature: 50\n"


def test_work_queue_survives_a_dead_worker(broker: Broker) -> None:
    assert run_example("examples/work_queue.py", broker).splitlines()[-1] == "all jobs done: True"


def test_orders_take_from_the_stock_once(broker: Broker) -> None:
    assert run_example("examples/order_processing.py", broker).splitlines() == [
        "a worker has died with an order that is done and not acked",
        "orders that the one that slept was kept from doing again: 1",
        "orders: 100, done: 100",
        "taken from the stock as ordered: True",
    ]


def test_a_burst_is_worked_off_and_nothing_is_lost(broker: Broker) -> None:
    said = run_example("examples/burst.py 200000 100000", broker).splitlines()
    assert said == ["sent, and on disk: 200000 messages", "lost: 0, worked on twice: 0"]


def test_one_stream_two_groups_and_what_could_not_be_mailed(broker: Broker) -> None:
    said = run_example("examples/fan_out.py", broker).splitlines()
    assert said[0] == "audited: 12, mailed: 8"
    assert all(line.endswith("}, max_deliveries after 3 attempts") for line in said[1:5])
    assert said[5:] == [
        "sent back: 4",
        "audited: 12, mailed: 12, dead letters: 0",
        "each order once in both: True",
    ]


def test_the_way_of_a_request_is_looked_up_in_captured_lines(broker: Broker) -> None:
    assert run_example("examples/log_tracing.py", broker).splitlines() == [
        "seen live: .billing.error no such customer",
        "replayed: .gateway.info request taken",
        "replayed: .orders.info order booked",
        "replayed: .billing.error no such customer",
        "lines in the stream: 1500, published: 1500",
    ]


AGAIN = ["fan_out", "log_tracing", "burst", *(["work_queue", "order_processing"] if LONG else [])]  # the latter wait


@pytest.mark.parametrize("name", AGAIN)
def test_an_example_can_be_run_again(broker: Broker, name: str) -> None:
    words = f"examples/{name}.py{' 20000 100000' if name == 'burst' else ''}"
    assert run_example(words, broker) == run_example(words, broker)


def test_every_example_is_run_here() -> None:
    tested = Path(__file__).read_text()
    assert all(f"examples/{path.name}" in tested for path in (ROOT / "examples").glob("*.py"))
