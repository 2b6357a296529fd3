"""A disk that is full, a file-size limit, and too few open files: what cannot be stored is refused, all else goes on, kills or not."""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from patterns.sync import Admin, Consumer, Producer, Publisher, Replier, Requester, Subscriber
from patterns.wire.errors import OutcomeUnknown, StorageFull, ZbrokerError
from tests.crash.audit import READY_S, SMALL, Told, check, served, status_of, verify
from tests.crash.small_disk import NotPermitted, SmallDisk
from tests.processes import LONG, PYTHON, Broker, until

REFUSED_S = 1  # so long a producer tries again before it says that the disk is full
KILLS = 6 if LONG else 2

SEGMENT_BYTES = (64 if LONG else 8) << 20  # in `make test` everything is smaller by eight
BODY_BYTES = SEGMENT_BYTES // 200
SMALL_SEGMENTS = {**SMALL, "CRASH_SEGMENT_BYTES": str(SEGMENT_BYTES)}

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="limits of another process and namespaces are Linux's"),
]


def _megabytes(of_a_whole_run: int) -> str:
    return f"{of_a_whole_run * SEGMENT_BYTES // 64}"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    try:
        small = SmallDisk(tmp_path / "small", _megabytes(256))
    except NotPermitted as error:
        pytest.skip(str(error))
    with small:
        yield small


class Backlog:
    """Fills the stream `work`, and remembers what was confirmed."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self._number = 0

    def send(self, url: str, size: int = BODY_BYTES) -> None:
        """Raises what the broker refuses it for."""
        self._number += 1
        with Producer(url, "work", codec="raw", timeout_s=REFUSED_S) as out:
            self.told.store("work", out.send(b"%08d" % self._number + bytes(size)).offset, self._number)

    def fill(self, url: str) -> ZbrokerError:
        """Send until that is refused; the refusal."""
        with Producer(url, "work", codec="raw", timeout_s=REFUSED_S) as out:
            return self.fill_by(out)

    def fill_by(self, out: Producer) -> ZbrokerError:
        """The same by a producer that is connected."""
        for _ in range(10_000):
            self._number += 1
            try:
                receipt = out.send(b"%08d" % self._number + bytes(BODY_BYTES))
            except ZbrokerError as error:
                return error
            self.told.store("work", receipt.offset, self._number)
        raise AssertionError("the disk takes no end")


def _work_off(url: str, count: int, told: Told) -> None:
    with Consumer(url, "work", group="g", codec="raw") as member:
        for _ in range(count):
            delivery = member.receive(30)
            assert delivery is not None
            told.store("work", delivery.offset, int(delivery.body[:8]))
            delivery.ack(confirm=True)
            told.acked.add(delivery.offset)


def _live_traffic_goes_on(url: str) -> None:
    replier = Replier(url, "echo", lambda body: body)
    serving = threading.Thread(target=replier.serve_forever, daemon=True)
    serving.start()
    with Requester(url) as requester, Subscriber(url, "live") as subscriber, Publisher(url) as publisher:
        assert requester.request("echo", 7, timeout_s=30, wait_s=30) == 7
        subscriber.ready(30)
        publisher.publish("live", 1)
        assert subscriber.receive(30) is not None
    replier.close()
    serving.join(30)


def _start_or_make_room(broker: Broker, disk: SmallDisk) -> bool:
    """Start; False when that takes a segment more than there is room for: it says so, and starts once there is."""
    try:
        broker.start()
    except AssertionError:
        assert broker.process.wait() == 69
        assert "No space left" in broker.process.errors
        assert "Free space on that file system" in broker.process.errors
        disk.remount(f"size={_megabytes(700)}")
        broker.start()
        return False
    return True


def _is_accepted(backlog: Backlog, url: str) -> bool:
    try:
        backlog.send(url, 10)
    except (StorageFull, OutcomeUnknown):
        return False
    return True


def test_a_full_disk_over_kills_loses_nothing_and_heals_without_a_restart(tmp_path: Path, disk: SmallDisk) -> None:
    broker = Broker(tmp_path, environment=SMALL_SEGMENTS, ready_s=READY_S, interpreter=(*disk.command, *PYTHON))
    broker.data = disk.folder / "data"
    told = Told()
    backlog = Backlog(told)
    disk.fill("others", _megabytes(40))
    with broker:
        _is_full(backlog, broker.url)
        broker.restart()  # there is a segment ahead, so that it can be started
        check(told, served(broker.url, drains=False))
        _is_full(backlog, broker.url)
        disk.remove("others")
        disk.remount(f"size={_megabytes(330)}")
        until(lambda: _is_accepted(backlog, broker.url), what="accepting producers again")
        _is_full(backlog, broker.url)
        for _ in range(KILLS):
            broker.kill()
            if not _start_or_make_room(broker, disk):
                break
        told.epochs = broker.epochs[:-1]
        found = served(broker.url)
        check(told, found)
        assert set(found.delivered) | told.acked >= {offset for _, offset in told.stored}, "confirmed and not consumed"
        until(lambda: _is_accepted(backlog, broker.url), what="accepting producers again")
        assert broker.terminate() == 0
        status, report, words = verify(broker.data, disk.command)
        assert status == 0, (words, report)


def _is_about_space(refusal: ZbrokerError) -> None:
    """Refused, and when to try again; or, of what the broker had taken already, that it may be stored."""
    assert isinstance(refusal, StorageFull | OutcomeUnknown), refusal
    assert "disk is full" in str(refusal)
    assert isinstance(refusal, OutcomeUnknown) or (refusal.retryable and refusal.retry_after_ms > 0)


def _is_refused_and_warned_of(backlog: Backlog, url: str) -> bool:
    """False if there is room again by now: a compaction has made some."""
    _is_about_space(backlog.fill(url))
    return any("the disk is full" in text for text in status_of(url)["warnings"])


def _is_full(backlog: Backlog, url: str) -> None:
    """Producers are refused and told when to try again; nobody else is hindered."""
    until(lambda: _is_refused_and_warned_of(backlog, url), what="a full disk")
    _live_traffic_goes_on(url)
    _work_off(url, 5, backlog.told)
    _is_about_space(backlog.fill(url))


def test_a_disk_that_the_broker_itself_has_filled_is_healed_by_a_purge(tmp_path: Path, disk: SmallDisk) -> None:
    """With as few checkpoints as ever: nobody writes what would make another one due."""
    few = {name: value for name, value in SMALL_SEGMENTS.items() if name != "CRASH_CHECKPOINT_RECORDS"}
    broker = Broker(tmp_path, environment=few, ready_s=READY_S, interpreter=(*disk.command, *PYTHON))
    broker.data = disk.folder / "data"
    backlog = Backlog(Told())
    with broker:
        _is_about_space(backlog.fill(broker.url))
        with Admin(broker.url) as admin:
            assert admin.purge_stream("work")["purged"] >= len(backlog.told.stored)
        until(lambda: _is_accepted(backlog, broker.url), what="accepting producers again")
        assert broker.terminate() == 0
        status, report, words = verify(broker.data, disk.command)
        assert status == 0, (words, report)


def test_a_read_only_disk_is_refused_with_a_hint_and_can_be_verified(tmp_path: Path, disk: SmallDisk) -> None:
    broker = Broker(tmp_path, environment=SMALL_SEGMENTS, ready_s=READY_S, interpreter=(*disk.command, *PYTHON))
    broker.data = disk.folder / "data"
    with broker:
        Backlog(Told()).send(broker.url, 10)
        assert broker.terminate() == 0
        disk.remount("ro")
        with pytest.raises(AssertionError, match="mounted for writing"):
            broker.start()
        assert broker.process.wait() == 69
        assert verify(broker.data, disk.command)[0] == 0


@pytest.mark.parametrize("limit", [resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE], ids=["file size", "open files"])
def test_a_limit_that_stands_in_the_way_of_the_next_segment_is_a_full_disk(tmp_path: Path, limit: int) -> None:
    """Lowered under a broker that runs, and raised again: it goes on without a restart."""
    told = Told()
    backlog = Backlog(told)
    with (
        Broker(tmp_path, environment=SMALL_SEGMENTS, ready_s=READY_S) as broker,
        Producer(broker.url, "work", codec="raw", timeout_s=REFUSED_S) as out,
    ):
        [pid] = broker.children()  # the sidecar: it opens and writes the files
        told.store("work", out.send(b"%08d" % 0).offset, 0)
        before = resource.prlimit(pid, limit)
        low = SEGMENT_BYTES - 4096 if limit == resource.RLIMIT_FSIZE else len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, limit, (low, before[1]))
        _is_about_space(backlog.fill_by(out))
        assert not broker.process.process.poll()
        resource.prlimit(pid, limit, before)
        until(lambda: _is_accepted(backlog, broker.url), what="accepting producers again")
        broker.restart()
        told.epochs = broker.epochs[:-1]
        found = served(broker.url)
        check(told, found)
        assert broker.terminate() == 0
    assert verify(broker.data)[0] == 0


@pytest.mark.parametrize("ignores", [True, False], ids=["SIGXFSZ ignored", "SIGXFSZ at its default"])
def test_a_broker_whose_files_may_not_be_as_large_as_a_segment_says_so(tmp_path: Path, ignores: bool) -> None:
    """Python ignores the signal, whatever it was given; so this is an error of a call, not a core dump."""
    action = "''" if ignores else "-"
    run = f'trap {action} XFSZ; ulimit -f 1024; exec "$0" "$@"'
    broker = Broker(tmp_path, ready_s=READY_S, interpreter=("sh", "-c", run, *PYTHON))
    with pytest.raises(AssertionError, match="File too large; `ulimit -f` must"):
        broker.start()
    assert broker.process.wait() == 69
    assert "Traceback" not in broker.process.errors
