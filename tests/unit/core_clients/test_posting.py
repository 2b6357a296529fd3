"""What post() gives back: cheap to make, and no load for the garbage collector."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any, cast

from patterns import aio, sync
from patterns.core.produce import Batch
from patterns.roles.posting import PostedRole
from patterns.roles.producer import ProducerRole
from patterns.wire.errors import BadBody
from patterns.wire.messages import Codec

ROLE: Any = SimpleNamespace(_owners={})


def posted(body: object = b"body", **more: Any) -> PostedRole:
    return sync.Posted(ROLE, body, **more)


def test_the_garbage_collector_does_not_track_it() -> None:
    assert not gc.is_tracked(sync.Posted(ROLE, b"body", "key", {"a": "b"}, "id"))
    assert not gc.is_tracked(aio.Posted(ROLE, b"body"))


def test_two_are_never_equal_and_each_can_be_in_a_set() -> None:
    assert len({posted(), posted()}) == 2
    assert posted() != posted()


def test_it_lets_go_of_its_body_when_that_is_in_a_batch() -> None:
    one, batch = posted({"a": 1}, _headers={"a": "b"}), Batch(1, Codec.RAW, b"", b"")
    ProducerRole._own(cast("ProducerRole[Any]", ROLE), batch, [one])
    assert (one._body, one._headers, one._batch) == (None, None, batch)
    assert repr(one) == "<Posted, on its way>"
    batch.done = True
    assert repr(one) == "<Posted, done>"


def test_callbacks_are_called_once_with_it_when_it_is_done_and_at_once_afterwards() -> None:
    one, told = posted(), list[object]()
    one.add_done_callback(told.append)
    one.add_done_callback(told.append)
    assert told == []
    one._error = BadBody("none")
    one._run_callbacks()
    one._run_callbacks()
    assert told == [one, one]
    one.add_done_callback(told.append)
    assert told == [one] * 3
