"""What the door does with batches that it cannot take now; more of it in test_streams.py."""

from __future__ import annotations

import pytest

from patterns.wire.messages import Columns
from tests.unit.core.durable import Durable


def test_what_follows_a_batch_refused_for_now_is_a_gap_so_order_is_kept() -> None:
    rig = Durable()
    producer = rig.producer()
    rig.streams.storage(full=True, failed=False)
    for body in "abc":
        producer.append(body)
    rig.turn()
    assert rig.errors(b"p") == ["STORAGE_FULL", "SEQUENCE_GAP", "SEQUENCE_GAP"]
    rig.streams.storage(full=False, failed=False)
    for sequence, body in enumerate("abc", start=1):
        producer.append(body, sequence=sequence, previous=sequence - 1)
    rig.turn()
    assert rig.confirms(b"p") == [(3, [0, 1, 2], [])]


def test_what_follows_a_batch_refused_for_good_is_taken() -> None:
    rig = Durable()
    producer = rig.producer()
    producer.append("a", stream="no/name")
    producer.append("b")
    rig.turn()
    assert rig.errors(b"p") == ["BAD_NAME"]
    assert rig.confirms(b"p") == [(2, [0], [])]


@pytest.mark.parametrize(("size", "errors"), [(100_000, []), (200_000, ["TOO_LARGE"])])
def test_columns_that_no_json_peer_could_be_given_are_refused(size: int, errors: list[str]) -> None:
    rig = Durable()
    rig.producer().append("a", columns=Columns(headers=[{"a": "\0" * size}]))
    rig.turn()
    assert rig.errors(b"p") == errors
