"""What the model admits where a checkpoint may know less than was delivered."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from patterns.wire.frames import pack
from patterns.wire.messages import Codec, Deliver, Hello, Join, Limits, Ready, Role, Settle
from patterns.wire.records import Opened, Record, RecordKind
from tests.simulation.holdings import Holdings
from tests.simulation.model import Model
from tests.simulation.violation import Violation

PEER = b"peer"
DELIVERED = b"\x91\x94\xa9delivered\x01\x01\x01"  # as an OPS record says it, of stream 1 and group 1: up to offset 1
OPS = [Record(index, RecordKind.OPS, 0, 0, 0, b"", DELIVERED) for index in range(4)]


def begun(model: Model, records: list[Record]) -> None:
    """A life of the broker, with a member that has joined."""
    model.opened(Opened(epoch=1, next_index=len(records) + 1, records=0, bytes=0, damage=[], torn_bytes=0), records)
    model.received(PEER, pack(Hello(role=Role.CONSUMER, nonce=b"n" * 16, codec=Codec.MSGPACK)), 0, 0)
    model.sent(PEER, pack(Ready(version=1, epoch=1, limits=Limits(1, 1))), 0, reached=True)
    model.received(PEER, pack(Join(id=1, stream="s", group="g")), 0, 0)


def lent(model: Model, lease: int, attempt: int) -> None:
    header = Deliver(lease=lease, offset=0, count=1, published_at=0, attempt=attempt)
    model.sent(PEER, pack(header), 0, reached=True)


def released_and_lent_again() -> Model:
    """Each time a record says so."""
    holdings = Holdings()
    holdings.names["s"] = 1
    truth = SimpleNamespace(holdings=holdings, messages={(1, 0): "uid"}, is_damaged=False, due_ms={}, reserved={})
    world: Any = SimpleNamespace(
        truth=truth,
        has_session=lambda peer: True,
        is_storage_failed=False,
        scheduler=SimpleNamespace(now=0),
        injected=Counter(),
    )
    model = Model(world)
    begun(model, [])
    lent(model, 1, 1)
    model.handed(OPS[1])
    model.received(PEER, pack(Settle(lease=1, action="release")), 0, 0)
    lent(model, 2, 1)
    model.handed(OPS[2])
    return model


@pytest.mark.parametrize("is_kept", [False, True])
def test_an_attempt_that_was_given_back_counts_once_a_record_of_the_next_one_survives(is_kept: bool) -> None:
    model = released_and_lent_again()
    model.books.crashed()
    begun(model, OPS[1 : 3 if is_kept else 2])
    if is_kept:
        with pytest.raises(Violation, match="attempt 1, the model 2 to 2"):
            lent(model, 3, 1)
    else:
        lent(model, 3, 1)


def test_what_a_checkpoint_said_after_a_release_holds_if_all_later_records_are_lost() -> None:
    model = released_and_lent_again()
    model.received(PEER, pack(Settle(lease=2, action="nack")), 0, 0)
    model.books.crashed()
    begun(model, OPS[1:2])
    lent(model, 3, 1)
