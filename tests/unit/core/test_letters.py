"""What a dead letter carries, and what it carries when it goes back."""

from __future__ import annotations

import msgspec

from patterns.wire import codec
from patterns.wire.frames import MSGPACK, pack_columns
from patterns.wire.messages import Codec, Columns
from zbroker.core import letters
from zbroker.core.doomed import Taken
from zbroker.core.tail import Batch, Split


def _split(*bodies: object, kept: list[tuple[int, int]] | None = None, **columns: object) -> Split:
    packed = pack_columns(Columns(**columns), MSGPACK)  # type: ignore[arg-type]
    payload = codec.encode(Codec.MSGPACK, bodies)[0].payload
    count = len(bodies) if kept is None else kept[-1][1] + 1
    return Split(Batch(1, 100, count, Codec.MSGPACK, None, 5_000, packed, payload, kept))


def _columns(letter: letters.Letter | None) -> Columns:
    assert letter is not None
    return msgspec.msgpack.decode(letter.columns, type=Columns)


def test_what_a_letter_had_comes_back_with_a_count_of_how_often_and_without_its_delay() -> None:
    died = letters.died(
        _split("a", "b", headers=[None, {"x": "y"}], delays=[0, 9]), [Taken(101, 101, 2, "bad", None)], "s", "g"
    )
    assert died is not None
    columns = _columns(died)
    assert columns.delays is msgspec.UNSET
    assert columns.headers == [
        {
            "x": "y",
            "zb-dead-reason": "bad",
            "zb-dead-stream": "s",
            "zb-dead-group": "g",
            "zb-dead-attempts": "2",
            "zb-dead-published-at": "5000",
            "zb-dead-offset": "101",
        }
    ]
    for count in ("1", "2"):
        back = letters.redriven(Split(Batch(1, 0, 1, Codec.MSGPACK, None, 0, died.columns, died.payload)), [(0, 0)])
        assert back is not None
        assert _columns(back).headers == [{"x": "y", "zb-redriven": count}]
        died = back


def test_messages_of_a_batch_that_was_cut_are_found_where_they_stand_now() -> None:
    split = _split("a", "b", "c", kept=[(2, 3), (7, 7)], keys=["2", "3", "7"])
    letter = letters.died(split, [Taken(103, 103, 1, "r", None), Taken(107, 107, 1, "r", None)], "s", "g")
    assert _columns(letter).keys == ["3", "7"]
    assert letters.headers_of(split, 102, 103) == [{}, {}]


def test_letters_that_do_not_fit_in_any_form_are_refused_together_and_alone_lose_what_they_had() -> None:
    headers = [{"a": "\0" * 100_000}, {"a": "\0" * 100_000}]
    split = _split("a", "b", headers=headers)
    assert letters.died(split, [Taken(100, 101, 1, "r", None)], "s", "g") is None
    assert letters.died(split, [Taken(100, 100, 1, "r", None)], "s", "g") is not None
    split = _split("a", headers=[{"a": "\0" * 175_000}])
    found = _columns(letters.died(split, [Taken(100, 100, 1, "r", None)], "s", "g")).headers
    assert isinstance(found, list)
    assert found[0] is not None
    assert (found[0]["zb-dead-headers-taken-out"], found[0]["zb-dead-offset"]) == ("1", "100")
