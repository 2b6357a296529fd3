"""Which streams and groups there are by what records on disk say, and what of them is gone: deleted, purged, given up, expired.

Holds what of invariant 2 is about giving up: a message goes when every group that is older has settled it, was purged of it, or
is told not to be waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from patterns.wire.records import Record, RecordKind
from patterns.wire.settled import Settled
from tests.simulation.burials import expired_by
from tests.simulation.violation import Violation

IsSettled = Callable[[str, str, int, int], bool]  # of a group, by stream, name, id and offset


class Holdings:
    """Over all lives of a broker.

    Attributes:
        names: stream name -> id.
        ids: the same, all that ever had it. Damage takes none: a checkpoint may know it.
        groups: (stream id, name) -> index of the record that made it.
        deleted, deleted_groups: ids of streams, and of streams and groups.
        purged: stream id -> below which offset a record says that nothing is left.
    """

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.ids: dict[str, list[int]] = {}
        self.groups: dict[tuple[int, str], int] = {}
        self.deleted: dict[int, None] = {}
        self.deleted_groups: dict[tuple[int, int], None] = {}
        self.purged: dict[int, int] = {}
        self._accounts: dict[tuple[int, str], dict[int, None]] = {}  # ids that a group had, one after the other
        self._purging: dict[int, int] = {}  # as `purged`, of records that may never have come to the disk
        self._expired: dict[tuple[int, int], Settled] = {}  # by stream and group: what is given up though it was owed
        self._excused: dict[tuple[int, int], Settled] = {}  # of that: while no bound of the stream waited for groups
        self._bounded: dict[int, None] = {}  # streams that are so configured
        self._forgotten: dict[int, Settled] = {}
        self._decided: dict[int, int] = {}  # below which offset a broker has given up all, by the stream's id

    # -- what records say -------------------------------------------------------------------------------------------

    def handed(self, record: Record) -> None:
        """The engine has let go of a record."""
        if record.kind == RecordKind.CATALOG:
            entry = msgspec.msgpack.decode(record.payload)
            if entry[0] == "purged":
                self._purging[entry[1]] = max(entry[2], self._purging.get(entry[1], 0))

    def expose(self, record: Record) -> None:
        """It is on disk. An open shows all of them again, but for those whose segments were given back."""
        if record.kind == RecordKind.CATALOG:
            self._expose_entry(record.index, msgspec.msgpack.decode(record.payload))
        elif record.kind == RecordKind.OPS:
            for stream, group, ranges in expired_by(record):
                self._expired.setdefault((stream, group), Settled()).add_all(ranges)
                if stream in self._bounded:
                    self._excused.setdefault((stream, group), Settled()).add_all(ranges)

    def _expose_entry(self, index: int, entry: list[Any]) -> None:
        match entry:
            case ["stream", str(name)] if index not in self.deleted:
                self.names[name] = index
                known = self.ids.setdefault(name, [])
                known += [index] if index not in known else []
            case ["group", int(stream), str(name), *_] if (stream, index) not in self.deleted_groups:
                self._accounts.setdefault((stream, name), {})[index] = None
                self.groups[stream, name] = max(self.groups.get((stream, name), 0), index)
            case ["configured", int(stream), {"keep_unsettled": False}]:
                self._bounded[stream] = None
            case ["configured", int(stream), _]:
                self._bounded.pop(stream, None)
            case ["purged", int(stream), int(below)]:
                self.purged[stream] = max(below, self.purged.get(stream, 0))
            case ["group_deleted", int(stream), int(group)]:
                for ids in [ids for (of, _), ids in self._accounts.items() if of == stream and group in ids]:
                    self.deleted_groups |= {(stream, id): None for id in ids if id < group}  # that were reset before
                self.deleted_groups[stream, group] = None
                self.groups = {key: id for key, id in self.groups.items() if (key[0], id) != (stream, group)}
            case ["deleted", int(stream), *_]:
                self.deleted[stream] = None
                self.names = {name: id for name, id in self.names.items() if id != stream}
                self.groups = {key: id for key, id in self.groups.items() if key[0] != stream}

    def lose(self, index: int) -> None:
        """Damage took the record that made a stream."""
        self.names = {name: id for name, id in self.names.items() if id != index}

    def id_of(self, stream: str, group: str) -> int:
        """Of a stream, or of a group of it; 0 if no record on disk has made it."""
        stream_id = self.names.get(stream, 0)
        return self.groups.get((stream_id, group), 0) if group else stream_id

    def purged_below(self, stream: str) -> int:
        """Below which offset a stream that has the name has nothing more."""
        return self.purged.get(self.names.get(stream, 0), 0)

    def is_purged(self, stream: str, below: int) -> bool:
        """Whether a record says so of a stream of that name, and what follows up to there was given up anyhow."""
        ends = {id: self.purged[id] for id in self.ids.get(stream, ()) if id in self.purged}
        return any(self._are_forgotten(id, end, below - 1) for id, end in ends.items())

    # -- what is given up ---------------------------------------------------------------------------------------------

    def decided(self, stream: int, floor: int) -> None:
        """A broker has given up what is below. It says so once the acks that allow it are on disk; readers need not wait for that."""
        self._decided[stream] = max(floor, self._decided.get(stream, 0))

    def forget(self, stream: int, first: int, last: int) -> list[int]:
        """The journal is told that nobody wants these any more; returns those of which it hears that for the first time."""
        known = self._forgotten.setdefault(stream, Settled())
        gone = [offset for offset in range(first, last + 1) if offset not in known]
        known.add(first, last)
        return gone

    def is_forgotten(self, stream: int, offset: int) -> bool:
        """Whether the journal was told so."""
        return stream in self._forgotten and offset in self._forgotten[stream]

    def are_forgotten(self, stream: str, first: int, last: int) -> bool:
        """Whether whoever reads a stream of this name may pass over them."""
        return first > last or any(self._are_forgotten(id, first, last) for id in self.ids.get(stream, ()))

    def _are_forgotten(self, stream: int, first: int, last: int) -> bool:
        first = max(first, self._decided.get(stream, 0))
        known = self._forgotten.get(stream, Settled())
        return all(offset in known for offset in range(first, last + 1))

    def judge(self, stream: int, offset: int, stored: int, reserved: str | None, is_settled: IsSettled) -> None:
        """Raise Violation if a message was given up that a group is owed.

        Args:
            stored: index of the record that it is in: groups that came later are owed nothing.
            reserved: the group that it was sent back to; None: it is for all.
        """
        for (of, group), id in self.groups.items():
            is_owed = of == stream and stored > id and reserved in (None, group)
            if is_owed and not self._may_expire(stream, id, offset):
                name = next(name for name, one in self.names.items() if one == stream)
                if not is_settled(name, group, id, offset):
                    raise Violation(f"2: {name}[{offset}] is given up, and {group} is owed it")

    def _may_expire(self, stream: int, group: int, offset: int) -> bool:
        """Whether it was given up though it was owed, and rightly: by a purge, or a bound that waits for no group."""
        if offset not in self._expired.get((stream, group), ()):
            return False
        return offset < self._purging.get(stream, 0) or offset in self._excused.get((stream, group), ())
