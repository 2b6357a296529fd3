"""A producer with a journal of its own, in the sync shell: a broker that is late, away, another one, or refuses."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from patterns.sync import Admin, Consumer, Producer
from patterns.sync.producer import Receipt
from patterns.wire.errors import BadArgument, BufferFull, StorageFailed, StorageFull, Unavailable, ZbrokerError
from tests.processes import Broker, program, until
from zbroker.store import open_journal
from zbroker.store.os_disk import OsDisk

KEPT = Receipt(None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "outbox"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Not started yet."""
    broker = Broker(tmp_path)
    yield broker
    if broker._program is not None:
        broker.process.kill()


def producer(broker: Broker, folder: Path, **more: object) -> Producer:
    return Producer(broker.url, "work", journal=open_journal(folder), **more)  # type: ignore[arg-type]


def stored(broker: Broker) -> list[object]:
    """All of the stream: so many messages as the broker says that it has."""
    with Admin(broker.url, timeout_s=30) as admin, Consumer(broker.url, "work", idle_timeout_s=30) as reader:
        count = admin.status()["streams"]["work"]["next_offset"]
        return [d.body for d in islice(reader, count)]


def test_what_is_sent_without_a_broker_is_forwarded_by_a_later_program(broker: Broker, folder: Path) -> None:
    with producer(broker, folder) as out:
        assert out.send(0) == KEPT
        assert list(out.send_many([1, 2])) == [KEPT, KEPT]
        posted = out.post(3)
        assert posted.result(30) == KEPT
        assert "in the producer's own journal" in repr(posted)
        with pytest.raises(Unavailable):
            out.flush(0.5)
        assert out.waiting == 4
    broker.start()
    with producer(broker, folder) as out:
        assert out.waiting == 4
        out.send(4)
        out.flush(30)
        assert out.waiting == 0
    assert stored(broker) == [0, 1, 2, 3, 4]


def test_all_that_travels_with_a_message_travels_later_too(broker: Broker, folder: Path) -> None:
    with producer(broker, folder, codec="json") as out:
        out.send({"n": 1}, key="k", headers={"h": "v"}, message_id="i")
        out.post({"n": 2}, key="k2")
    broker.start()
    with producer(broker, folder) as out:
        out.flush(30)
    with Consumer(broker.url, "work", idle_timeout_s=30) as reader:
        found = [(d.body, d.key, d.headers) for d in islice(reader, 2)]
    assert found == [({"n": 1}, "k", {"h": "v"}), ({"n": 2}, "k2", None)]


def test_a_broker_that_comes_and_goes_gets_each_once(broker: Broker, folder: Path) -> None:
    with producer(broker, folder) as out:
        for number in range(200):
            if number % 100 == 50:
                broker.start()
            out.send(number)
            if number % 100 == 90:
                broker.kill()
        broker.start()
        out.flush(60)
    assert stored(broker) == list(range(200))


def test_a_post_callback_runs_when_it_is_on_the_own_disk(broker: Broker, folder: Path) -> None:
    heard: list[Receipt] = []
    with producer(broker, folder) as out:
        out.post(0).add_done_callback(lambda posted: heard.append(posted.result(0)))
        until(lambda: heard == [KEPT])


def test_a_folder_is_of_one_process(broker: Broker, folder: Path, tmp_path: Path) -> None:
    source = "import sys; from zbroker.store import open_journal; open_journal(sys.argv[1])"
    with open_journal(folder), program(source, tmp_path, str(folder)) as other:
        assert other.wait() == 1
        assert "is locked by another process" in other.errors
    open_journal(folder).close()


def test_a_journal_is_of_one_producer(broker: Broker, folder: Path) -> None:
    journal = open_journal(folder)
    with Producer(broker.url, "work", journal=journal), pytest.raises(BadArgument, match="belongs to another Producer"):
        Producer(broker.url, "work", journal=journal)
    with pytest.raises(BadArgument, match="open it anew"):
        Producer(broker.url, "work", journal=journal)
    with open_journal(folder) as again, pytest.raises(BadArgument, match="a name of its own"):
        Producer(broker.url, "work", journal=again, name="till-7")
    with pytest.raises(BadArgument, match="open_journal"):
        Producer(broker.url, "work", journal=str(folder))  # type: ignore[arg-type]


def _fill(call: Callable[[], object]) -> None:
    for _ in range(100_000):
        call()


def test_it_is_bounded_and_goes_on_when_there_is_room(broker: Broker, folder: Path) -> None:
    journal = open_journal(folder, bytes_max=1 << 20)
    with Producer(broker.url, "work", journal=journal, timeout_s=0.2, codec="raw") as out:
        with pytest.raises(BufferFull, match=r"at most 1048576 \(bytes_max of open_journal\)"):
            _fill(lambda: out.send(bytes(50_000)))
        assert 10 < out.waiting < 30
        with pytest.raises(BufferFull):
            _fill(lambda: out.post(bytes(50_000)))
        broker.start()
        out.flush(30)
        assert out.send(b"last") == KEPT
        out.flush(30)
    assert stored(broker)[-1] == b"last"


def test_what_a_broker_refuses_for_good_is_kept_in_a_file_and_the_rest_goes_on(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    configured = tmp_path / "zbroker.toml"
    configured.write_text("auto_create = false\n")
    with Broker(tmp_path, "--config", str(configured)) as broker, producer(broker, folder) as out:
        out.send({"n": 1}, key="k")
        out.flush(30)
        until(lambda: out.refused == 1)
    assert "the broker refuses 1 message, now in" in caplog.text
    line = json.loads((folder / "refused.jsonl").read_text())
    assert (line["stream"], line["body"], line["key"], line["error"]["name"]) == (
        "work",
        {"n": 1},
        "k",
        "NO_SUCH_STREAM",
    )


def test_another_cluster_gets_what_has_no_confirm(broker: Broker, folder: Path) -> None:
    broker.start()
    with producer(broker, folder) as out:
        out.send(0)
        out.flush(30)
        broker.kill()
        shutil.rmtree(broker.data)
        out.send(1)
        broker.start()
        out.flush(30)
    assert stored(broker) == [1]


@pytest.mark.parametrize("name", ["", "\0", b"outbox"])
def test_a_journal_needs_the_name_of_a_folder(name: str) -> None:
    with pytest.raises(BadArgument, match="the path of a folder"):
        open_journal(name)


def test_what_the_disk_has_damaged_is_told_and_the_rest_forwarded(
    broker: Broker, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with producer(broker, folder) as out:
        for number in range(3):
            out.send(["a body to be found", number])
    [segment] = [path for path in sorted(folder.glob("*.seg")) if b"a body to be found" in path.read_bytes()]
    data = bytearray(segment.read_bytes())
    data[data.index(b"a body to be found\x01")] ^= 1
    segment.write_bytes(data)
    broker.start()
    with producer(broker, folder) as out:
        out.flush(30)
    assert "lost: 1 message (body, " in caplog.text
    assert stored(broker) == [["a body to be found", 0], ["a body to be found", 2]]


def test_a_folder_put_back_from_a_copy_loses_nothing_and_says_so(
    broker: Broker, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker.start()
    with producer(broker, folder) as out:
        out.send(0)
        out.flush(30)
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    with producer(broker, folder) as out:
        out.send_many([1, 2, 3])
        out.flush(30)
    with producer(broker, copy) as out:
        out.send(4)
        out.flush(30)
    assert "is a copy from another time" in caplog.text
    assert stored(broker) == [0, 1, 2, 3, 4]


def test_a_disk_that_fails_refuses_and_hangs_nobody(
    broker: Broker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(disk: OsDisk, handle: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with producer(broker, folder) as out:
        out.send(0)
        monkeypatch.setattr(OsDisk, "fdatasync", fail)
        for call in (lambda: out.send(1), lambda: out.send(2), lambda: out.post(3).result(30)):
            with pytest.raises(StorageFailed, match="Input/output error"):
                call()
        monkeypatch.undo()
    with producer(broker, folder) as out:
        assert 1 <= out.waiting <= 2  # of what has no receipt, the first may be there


def test_a_full_disk_is_told_and_heals(broker: Broker, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(disk: OsDisk, handle: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with producer(broker, folder, codec="raw", timeout_s=0.3) as out:
        monkeypatch.setattr(OsDisk, "fallocate", fill)
        with pytest.raises(StorageFull, match="outbox is full"):
            _fill(lambda: out.send(bytes(1 << 20)))
        kept = out.waiting
        monkeypatch.undo()

        def takes() -> bool:
            try:
                return out.send(b"again") == KEPT
            except ZbrokerError:
                return False

        until(takes)
    with producer(broker, folder) as out:
        assert out.waiting >= kept + 1


FORKING = """
import os, signal, sys, time
from patterns.sync import Producer
from patterns.wire.errors import Forked
from zbroker.store import open_journal
out = Producer(sys.argv[1], "work", journal=open_journal(sys.argv[2]))
out.send(1)
child = os.fork()
if not child:
    try:
        out.send(2)
    except Forked:
        print("forked", os.getpid(), flush=True)
    signal.pause()
signal.pause()
"""


def test_a_child_after_a_fork_neither_sends_nor_holds_the_folder(broker: Broker, folder: Path, tmp_path: Path) -> None:
    with program(FORKING, tmp_path, broker.url, str(folder)) as parent:
        said, child = parent.line().split()
        try:
            parent.process.kill()
            parent.process.wait()
            assert said == "forked"
            with producer(broker, folder) as out:
                assert out.waiting == 1
        finally:
            os.kill(int(child), signal.SIGKILL)
