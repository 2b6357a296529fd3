"""Message ids against a model: whatever is sent, however long it takes and however often the broker is killed, an id is stored once a window."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from patterns.wire.configs import StreamConfig, told
from patterns.wire.messages import Columns, Confirm
from tests.unit.core.durable import SECOND, Durable, restarted

_CONFIG = StreamConfig("s", dedup_s=10.0, dedup_ids_max=4)
_IDS = st.lists(st.one_of(st.none(), st.sampled_from("abcdefgh")), min_size=1, max_size=6)
_STEPS = st.lists(
    st.one_of(_IDS, st.integers(1, 12), st.sampled_from(["restart", "checkpoint"])), min_size=1, max_size=25
)


class _Model:
    """Ids with offset and instant, oldest first."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[int, int]] = {}
        self.next = 0

    def send(self, ids: list[str | None], now_s: int) -> list[int]:
        """Offsets of the messages of a batch."""
        self.known = {one: found for one, found in self.known.items() if found[1] > now_s - _CONFIG.dedup_s}
        offsets = []
        fresh: dict[str, tuple[int, int]] = {}
        for one in ids:
            known = None if one is None else self.known.get(one) or fresh.get(one)
            offsets.append(self.next if known is None else known[0])
            if known is None:
                if one is not None:
                    fresh[one] = self.next, now_s
                self.next += 1
        self.known |= fresh
        self.known = dict(list(self.known.items())[-_CONFIG.dedup_ids_max :])
        return offsets


def _offsets(confirm: Confirm, count: int) -> Iterator[int]:
    """As SPEC.md 9.1 has them."""
    repeats = {place + more: offset + more for _, place, offset, many in confirm.exceptions for more in range(many)}
    following = confirm.offsets[0]
    for place in range(count):
        if place in repeats:
            yield repeats[place]
        else:
            yield following
            following += 1


@given(_STEPS)
@settings(max_examples=150, deadline=None)
def test_an_id_is_stored_once_in_its_window(steps: list[list[str | None] | int | str]) -> None:
    rig, model, now_s, epoch = Durable(), _Model(), 0, 1
    rig.ask("create_stream", config=told(_CONFIG))
    producer = rig.producer()
    for step in steps:
        if isinstance(step, int):
            now_s += step
            rig.pass_time(step * SECOND)
        elif isinstance(step, str):
            epoch += 1
            rig = restarted(rig, epoch, with_checkpoint=step == "checkpoint")
            producer = rig.producer()
        else:
            producer.append(*range(len(step)), columns=Columns(ids=step))
            rig.turn()
            (confirm,) = rig.take(b"p", Confirm)
            assert list(_offsets(confirm, len(step))) == model.send(step, now_s)
    assert rig.streams._catalog.by_name["s"].next_offset == model.next
