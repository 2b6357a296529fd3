"""What a broker does whose sidecar dies or stands still, and what a sidecar does without its broker; under load: test_kill.py."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from patterns.sync import Admin, Producer, Publisher, Replier, Requester, Subscriber
from patterns.wire.errors import StorageFailed
from tests.processes import Broker, is_gone, state_of, until

pytestmark = pytest.mark.timeout(240)


def journal_of(url: str) -> dict[str, Any]:
    with Admin(url) as admin:
        status: dict[str, Any] = admin.status()
        return status["journal"]


def sidecar_of(broker: Broker) -> int:
    """The pid of the sidecar that lives; 0 while there is none."""
    return next(iter(broker.children()), 0)


def kill_sidecar(broker: Broker, number: int = signal.SIGKILL) -> int:
    """The one that lives now, which may still be opening."""
    until(lambda: sidecar_of(broker) != 0, what="a sidecar")
    pid = sidecar_of(broker)
    os.kill(pid, number)
    return pid


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path) as broker:
        yield broker


def test_a_dead_sidecar_is_replaced_and_nobody_but_status_and_the_log_tells(broker: Broker, tmp_path: Path) -> None:
    with Producer(broker.url, "s") as out:
        for number in range(3):
            assert out.send(number).offset == number
            kill_sidecar(broker)
        assert [out.send(number).offset for number in range(3, 6)] == [3, 4, 5]
    until(lambda: journal_of(broker.url)["sidecar"]["restarts"] == 3, what="the account of it")
    assert journal_of(broker.url)["sidecar"]["state"] == "serving"
    assert journal_of(broker.url)["sidecar"]["pid"] == sidecar_of(broker)
    log = tmp_path / "broker.err"  # written by a thread
    until(lambda: log.read_text().count("sidecar_died") == 3, what="the log of each death")
    until(lambda: log.read_text().count("sidecar_returned") == 3, what="the log of each return")


def test_a_dead_broker_leaves_no_sidecar_behind(broker: Broker) -> None:
    with Producer(broker.url, "s") as out:
        out.send(1)
    pid = sidecar_of(broker)
    broker.kill()
    until(lambda: is_gone(pid), what="the sidecar's end")


def test_a_stopped_sidecar_holds_up_confirms_and_nothing_else(broker: Broker) -> None:
    with (
        Replier(broker.url, "double", lambda body: body * 2) as replier,
        Requester(broker.url) as requester,
        Subscriber(broker.url, "t.>") as subscriber,
        Publisher(broker.url) as publisher,
        Producer(broker.url, "s") as out,
    ):
        threading.Thread(target=replier.serve_forever, daemon=True).start()
        assert requester.request("double", 1, timeout_s=20) == 2
        subscriber.ready(timeout_s=20)
        out.send("first")
        pid = kill_sidecar(broker, signal.SIGSTOP)
        until(lambda: state_of(pid) == "T", what="its stop")
        posted = out.post("second")
        for number in range(20):
            assert requester.request("double", number, timeout_s=20) == 2 * number
            publisher.publish("t.x", number)
            assert next(iter(subscriber)).body == number
        assert not posted.done()
        os.kill(pid, signal.SIGCONT)
        assert posted.result(timeout_s=30).offset == 1


def test_a_sidecar_is_deaf_to_what_a_terminal_sends_to_all(broker: Broker) -> None:
    pid = sidecar_of(broker)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    with Producer(broker.url, "s") as out:
        out.send(1)
    assert sidecar_of(broker) == pid
    assert broker.terminate() == 0
    until(lambda: is_gone(pid), what="the sidecar's end")


def test_a_sidecar_inherits_nothing_but_its_line(broker: Broker) -> None:
    """A listening socket in it would keep the port from the next broker."""
    kill_sidecar(broker)
    with Producer(broker.url, "s") as out:
        out.send(1)
    pid = sidecar_of(broker)
    folder = Path(f"/proc/{pid}/fd")
    sockets = [link for link in folder.iterdir() if os.readlink(link).startswith(("socket:", "anon_inode:[event"))]
    assert [link.name for link in sockets] == ["0"]


def test_sidecars_that_die_all_the_time_are_a_failed_storage_that_stays_visible(broker: Broker, tmp_path: Path) -> None:
    killed: set[int] = set()

    def is_failed() -> bool:
        pid = sidecar_of(broker)
        if pid and pid not in killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        return len(killed) >= 5 and "died 5 times" in (tmp_path / "broker.err").read_text()

    with Replier(broker.url, "echo", lambda body: body) as replier, Requester(broker.url) as requester:
        threading.Thread(target=replier.serve_forever, daemon=True).start()
        requester.request("echo", 1, timeout_s=20)
        until(is_failed, what="five deaths")
        with Producer(broker.url, "s") as out, pytest.raises(StorageFailed):
            out.send(1)
        assert requester.request("echo", 2, timeout_s=20) == 2
    until(lambda: "died 5 times" in str(journal_of(broker.url)["failed"]), what="the account of it")
    assert broker.terminate() == 0
