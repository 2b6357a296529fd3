"""SIGKILL while checkpoints are cut and written, again and again: nothing that was confirmed or acked is undone."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

from patterns.sync import Admin, Consumer, Producer
from tests.processes import LONG, READY_S, Program, until
from zbroker.store.faults import FolderLocked
from zbroker.store.os_disk import OsDisk
from zbroker.store.verify import FolderReport, verify_folder

KILLS = 25 if LONG else 4
# A broker that is never without a checkpoint to write: one is due after each commit or two, in pieces of a few entries.
HERE = Path(__file__).parent
SWITCHES = {"PYTHONPATH": f"{HERE / 'switches'}:{HERE.parent.parent}", "CRASH_CHECKPOINT_RECORDS": "3"}
BROKER = """
import sys
sys.argv[0] = "zbroker"
from zbroker.core import checkpoint as pieces
pieces.CHUNK_BYTES = 200
from zbroker.cli.main import main
main()
"""


class Checkpointing:
    """A broker process on one folder, over several lives."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self.bind = "tcp://127.0.0.1:0"

    def start(self) -> Program:
        run = ["run", "--bind", self.bind, "--data", str(self.data), "--json"]
        program = Program(["-c", BROKER, *run], self.folder / "broker.err", SWITCHES)
        self.bind = json.loads(program.line(READY_S))["addresses"]["native"]
        return program

    @property
    def url(self) -> str:
        return self.bind.replace("tcp://", "zb://")


def status(url: str) -> dict[str, Any]:
    with Admin(url, timeout_s=30) as admin:
        return admin.status()


def checkpoints(data: Path) -> set[str]:
    return {path.name for path in data.glob("checkpoint-*")}


def verified(data: Path) -> FolderReport:
    """Once the sidecar of who was killed is gone."""
    reports: list[FolderReport] = []

    def is_free() -> bool:
        try:
            reports.append(verify_folder(OsDisk(), str(data)))
        except FolderLocked:
            return False
        return True

    until(is_free, what="a free folder")
    return reports[-1]


def test_kills_amid_checkpoints_undo_nothing(tmp_path: Path) -> None:
    dice = random.Random(5)
    broker = Checkpointing(tmp_path)
    sent = acked = 0
    seen: set[str] = set()
    for _ in range(KILLS):
        with broker.start() as program, Producer(broker.url, "s", name="p", timeout_s=30) as out:
            consumer = Consumer(broker.url, "s", group="g", idle_timeout_s=30)
            for number in range(dice.randint(20, 60)):
                out.send([sent, number])
                sent += 1
                if number % 3 == 0:
                    delivery = consumer.receive(30)
                    assert delivery is not None
                    delivery.ack(confirm=True)
                    acked += 1
            known = frozenset(seen)
            until(lambda known=known: bool(checkpoints(broker.data) - known), what="a checkpoint")
            seen |= checkpoints(broker.data)
            program.signal(signal.SIGKILL)
            program.wait()
            consumer.close(0.1)
        assert verified(broker.data).is_whole
    newest = broker.data / max(checkpoints(broker.data))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with broker.start() as program:
        found = status(broker.url)
        assert any("the whole log, was read instead" in text for text in found["journal"]["warnings"])
        assert found["streams"]["s"]["next_offset"] == sent
        assert found["groups"]["s/g"]["acked"] == acked
        assert found["groups"]["s/g"]["balanced"]
        assert found["anomalies"] == 0
        with Consumer(broker.url, "s", idle_timeout_s=2) as reader:
            assert [d.body[0] for d in reader] == list(range(sent))
        program.signal(signal.SIGTERM)
        program.wait()
