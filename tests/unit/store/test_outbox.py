"""What a Producer's own journal promises call by call; crashes are in tests/property/test_outbox.py."""

from __future__ import annotations

import errno
from random import Random

import msgspec
import pytest

from patterns.io.outbox import Outbox
from patterns.wire.errors import BadArgument, Damaged, StorageFailed, StorageFull, TooLarge
from patterns.wire.messages import Codec
from patterns.wire.parcel import Parcel, Unsendable
from patterns.wire.records import Position
from zbroker.store.faults import NotOurs
from zbroker.store.journal import FileJournal
from zbroker.store.outbox import FileOutbox
from zbroker.store.segment import segment_name
from zbroker.testing.disk import VirtualDisk

FOLDER = "/o"
S = 1_000_000
BIG = 1 << 30


def opened(disk: VirtualDisk, bytes_max: int = 1 << 20) -> FileOutbox:
    random = Random(1)
    return FileOutbox(
        disk,
        FOLDER,
        bytes_max=bytes_max,
        random_bytes=random.randbytes,
        wall_ms=lambda: 7,
        segment_bytes=64 << 10,
    )


def parcels(count: int, size: int = 100, first: int = 0) -> list[Parcel]:
    return [
        Parcel(0, 1, Codec.MSGPACK, b"", msgspec.msgpack.encode([f"{number:0{size}}"]))
        for number in range(first, first + count)
    ]


def bodies(found: list[Parcel | Unsendable]) -> list[int]:
    return [int(msgspec.msgpack.decode(one.payload)[0]) for one in found if isinstance(one, Parcel)]


def rot(disk: VirtualDisk, position: Position) -> None:
    file = disk.live[f"{FOLDER}/{segment_name(position.segment)}"]
    for half in (file.cache, file.platter):
        half[position.offset + 100] ^= 1


def test_it_serves_the_protocol() -> None:
    outbox = opened(VirtualDisk())
    assert isinstance(outbox, Outbox)


def test_what_is_kept_is_handed_out_in_order_over_a_restart() -> None:
    disk = VirtualDisk()
    outbox = opened(disk)
    assert outbox.keep(parcels(10), 0) == 10
    outbox.close()
    again = opened(disk)
    assert bodies(again.hand_out([], BIG)) == list(range(10))
    assert again.waiting_messages == 10


def test_fresh_parcels_need_no_read() -> None:
    outbox = opened(VirtualDisk())
    fresh = parcels(3)
    outbox.keep(fresh, 0)
    assert outbox.hand_out(fresh, BIG) == fresh
    assert outbox._reader.calls == 0


def test_what_is_settled_does_not_come_again() -> None:
    disk = VirtualDisk()
    outbox = opened(disk)
    outbox.keep(parcels(10), 0)
    outbox.hand_out([], BIG)
    outbox.settle(4)
    outbox.tend(0)
    outbox.tend(1 * S)
    disk.crash()
    again = opened(disk)
    assert bodies(again.hand_out([], BIG)) == list(range(4, 10))
    assert again.last_number == 10


def test_no_file_is_held_open_that_may_be_gone_by_now() -> None:
    outbox = opened(VirtualDisk())
    outbox.keep(parcels(3), 0)
    outbox.hand_out([], BIG)
    assert outbox._reader.files == 1
    outbox.tend(9 * S)
    assert outbox._reader.files == 0


def test_no_more_is_handed_out_than_a_broker_remembers_until_a_restart_knows_what_it_has() -> None:
    outbox = opened(VirtualDisk())
    outbox.keep(parcels(100), 0)
    assert len(outbox.hand_out([], BIG)) == 64
    outbox.settle(10)
    assert not outbox.has_more
    outbox.tend(0)
    outbox.tend(1 * S)
    assert bodies(outbox.hand_out([], BIG)) == list(range(64, 74))


def test_a_journal_is_of_one_stream_while_anything_waits() -> None:
    disk = VirtualDisk()
    outbox = opened(disk)
    sender = outbox.begin("orders")
    outbox.keep(parcels(1), 0)
    outbox.close()
    again = opened(disk)
    with pytest.raises(BadArgument, match="1 message for stream 'orders', not 'invoices'"):
        again.begin("invoices")
    again.settle(1)
    assert again.begin("invoices") != sender


def test_a_journal_serves_one_producer_and_once() -> None:
    outbox = opened(VirtualDisk())
    outbox.begin("orders")
    with pytest.raises(BadArgument, match="belongs to another Producer"):
        outbox.begin("orders")
    outbox.close()
    with pytest.raises(BadArgument, match="open it anew"):
        outbox.begin("orders")


def test_the_identity_stays_over_restarts_and_changes_when_it_is_renewed() -> None:
    disk = VirtualDisk()
    outbox = opened(disk)
    first = outbox.begin("orders")
    outbox.close()
    again = opened(disk)
    assert again.begin("orders") == first
    second = again.renew()
    assert second != first
    again.close()
    assert opened(disk).begin("orders") == second


def test_space_follows_what_waits() -> None:
    disk = VirtualDisk()
    outbox = opened(disk)
    now = 0
    for number in range(2_000):
        now += S
        outbox.keep(parcels(1, 4_000, number), now)
        outbox.hand_out([], BIG)
        outbox.settle(number + 1)
        outbox.tend(now)
        outbox.tend(now + S // 2)
    assert outbox.used_bytes == 0
    assert len([name for name in disk.listdir(FOLDER) if name.endswith(".seg")]) < 16


def test_many_short_lives_do_not_take_a_segment_each() -> None:
    disk = VirtualDisk()
    now = 0
    for number in range(60):
        outbox = opened(disk)
        outbox.keep(parcels(1, 100, number), now)
        for _ in range(20):
            now += S
            outbox.tend(now)
        outbox.close()
    size = sum(disk.size(disk.open(f"{FOLDER}/{name}")) for name in disk.listdir(FOLDER) if name.endswith(".seg"))
    assert size < 20 * (64 << 10)
    assert bodies(opened(disk).hand_out([], BIG)) == list(range(60))


def test_a_full_disk_takes_no_more_loses_nothing_and_heals() -> None:
    disk = VirtualDisk()
    outbox = opened(disk)
    disk.free_bytes = 0
    kept, now = 0, 0
    while outbox.trouble is None:
        kept += outbox.keep(parcels(4, 2_000, kept), now)
        now += S
        outbox.tend(now)
    assert isinstance(outbox.trouble, StorageFull)
    assert outbox.keep(parcels(1, 10, kept), now) == 0
    disk.free_bytes = None
    for _ in range(5):
        now += S
        outbox.tend(now)
    assert outbox.trouble is None
    assert outbox.keep(parcels(1, 10, kept), now) == 1
    outbox.close()
    again = opened(disk)
    assert again.waiting_messages == kept + 1
    assert bodies(again.hand_out([], BIG)) == list(range(kept + 1))


def test_a_disk_that_fails_is_told_and_takes_nothing_more() -> None:
    disk = VirtualDisk()
    outbox = opened(disk)
    outbox.keep(parcels(3), 0)
    disk.faults.append(["fdatasync", 1, errno.EIO])
    with pytest.raises(StorageFailed):
        outbox.keep(parcels(1), 0)
    assert isinstance(outbox.trouble, StorageFailed)
    with pytest.raises(StorageFailed):
        outbox.keep(parcels(1), 0)
    assert outbox.safe == 3


def test_a_locked_folder_is_refused() -> None:
    disk = VirtualDisk()
    opened(disk)
    with pytest.raises(StorageFailed, match="locked by another process"):
        opened(disk)


def test_a_batch_that_rots_is_told_and_those_around_it_are_handed_out() -> None:
    disk = VirtualDisk()
    outbox = opened(disk)
    for number in range(3):
        outbox.keep(parcels(1, 100, number), 0)
    position = outbox._state.places[2].position
    rot(disk, position)
    found = outbox.hand_out([], BIG)
    assert bodies(found) == [0, 2]
    assert isinstance(found[1], Unsendable)
    assert isinstance(found[1].error, Damaged)


def test_numbers_that_damage_took_are_not_given_again() -> None:
    disk = VirtualDisk()
    outbox = opened(disk)
    for number in range(3):
        outbox.keep(parcels(1, 100, number), 0)
    position = outbox._state.places[2].position
    outbox.close()
    rot(disk, position)
    again = opened(disk)
    assert [words.partition(" (")[0] for words in again.damage] == ["1 message"]
    again.keep(parcels(1, 100, 7), 0)
    assert again.last_number > 3
    assert bodies(again.hand_out([], BIG)) == [0, 2, 7]


def test_a_refused_batch_is_put_where_people_find_it() -> None:
    disk = VirtualDisk()
    outbox = opened(disk)
    outbox.keep(parcels(2), 0)
    used = outbox.used_bytes
    outbox.hand_out([], BIG)
    outbox.refuse(1, TooLarge("too large"))
    outbox.settle(1)
    assert outbox.refused_messages == 1
    assert outbox.used_bytes == used - 4_096 + len(disk.live[f"{FOLDER}/refused.jsonl"].cache)
    outbox.close()
    assert opened(disk).refused_messages == 1


def test_neither_a_broker_nor_a_producer_takes_the_others_journal() -> None:
    disk = VirtualDisk()
    opened(disk).close()
    with pytest.raises(NotOurs, match="is the journal of a producer"):
        FileJournal(disk, FOLDER, random_bytes=bytes, wall_ms=lambda: 0).open(lambda *_: None)
    disk = VirtualDisk()
    FileJournal(disk, FOLDER, random_bytes=bytes, wall_ms=lambda: 0, segment_bytes=64 << 10).open(lambda *_: None)
    disk.crash()
    with pytest.raises(StorageFailed, match="is the journal of a broker"):
        opened(disk)


def test_a_crash_right_after_the_mark_is_made_is_no_foreign_folder() -> None:
    disk = VirtualDisk()
    disk.make_folder(FOLDER)
    disk.close(disk.open(f"{FOLDER}/producer", create=True))
    assert opened(disk).waiting_messages == 0
