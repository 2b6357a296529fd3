"""An error that was raised and handled is gone: nothing of ours keeps it, nor the frames that it went through."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patterns.sync import Consumer, Producer, Replier, Requester
from patterns.wire.errors import BadBody, ZbrokerError
from tests.processes import Broker

TIMES = 20


def kept() -> Counter[str]:
    gc.collect()
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, ZbrokerError))


def raised(call: Callable[[], object]) -> None:
    with pytest.raises(ZbrokerError):
        call()


def check(call: Callable[[], object]) -> None:
    before = kept()
    for _ in range(TIMES):
        raised(call)
    assert sum((kept() - before).values()) < TIMES // 4, "the last one may still be somebody's"


def test_a_request_that_fails_leaves_nothing_behind() -> None:
    def fail(body: Any) -> Any:
        raise ValueError(body)

    with Replier("tcp://127.0.0.1:*", "fails", fail) as replier, Requester(replier.address) as requester:
        thread = threading.Thread(target=replier.serve_forever)
        thread.start()
        try:
            check(lambda: requester.request("fails", b"x" * 1_000, timeout_s=30))
            check(lambda: requester.request("nowhere", 1, timeout_s=30, wait_s=0.01))
            check(lambda: list(requester.stream("fails", 1, timeout_s=30)))
        finally:
            replier.close()
            thread.join()


def test_what_a_broker_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        with Producer(broker.url, "work", codec="raw", timeout_s=30) as out:
            out.send(b"x")

            def refused() -> None:
                posted = out.post(b"x")
                posted.result(30)
                assert posted._batch is not None
                posted._batch.error = BadBody("as a broker would say")  # no call of a Producer makes ours say so
                posted.result(30)

            check(refused)
        with Consumer(broker.url, "work", group="g", codec="raw") as member:
            delivery = member.receive(30)
            assert delivery is not None
            delivery.ack(confirm=True)
            check(lambda: delivery.ack(confirm=True))
