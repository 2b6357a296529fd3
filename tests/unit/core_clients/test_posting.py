"""What post() gives back: cheap to make, and no load for the garbage collector."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any, cast

from patterns import aio, sync
from patterns.core.produce import Batch
from patterns.roles.posting import PostedRole, Receipts
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
    batch.done, batch.offset = True, 7
    assert repr(one) == "<Posted, stored, offset 7>"
    batch.error = BadBody("none")
    assert repr(one).startswith("<Posted, refused: BadBody(")


def stored(count: int, offset: int, *, duplicate: bool = False) -> Batch:
    batch = Batch(count, Codec.RAW, b"", b"")
    batch.offset, batch.duplicate, batch.done = offset, duplicate, True
    return batch


def test_receipts_say_how_many_there_are_and_where() -> None:
    assert repr(Receipts([])) == "<no receipts>"
    assert repr(Receipts([stored(1, 5)])) == "<1 receipt, offset 5>"
    again = Receipts([stored(2, 5), stored(3, 9, duplicate=True)])
    assert repr(again) == "<5 receipts, offsets 5 to 11, 3 stored before>"


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
