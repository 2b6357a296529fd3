"""Verbs about dead letters (SPEC.md 9.3): which there are, what is in them, and sending them back where they came from.

What is pending in the group `redrive` of a dead-letter stream are the letters that nobody has sent back. One record sends some
of them back: it is their batch in the other stream, and says that `redrive` is done with them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from patterns.wire.errors import (
    BadArgument,
    LoadError,
    NoSuchStream,
    Overloaded,
    StorageError,
    StorageFull,
    StreamFull,
)
from patterns.wire.messages import Codec, Count
from patterns.wire.names import check_name
from patterns.wire.words import counted
from zbroker.core import letters
from zbroker.core.administration import Arguments, Call, Verb
from zbroker.core.dead_letters import LETTERS_MAX, REDRIVE, TURN_BYTES, Mover
from zbroker.core.tail import UNREADABLE, Split

if TYPE_CHECKING:
    from zbroker.core.administration import Administration
    from zbroker.core.groups import Group
    from zbroker.core.log import StreamLog

SHOWN: Final = 20
SHOWN_MAX: Final = 500
PREVIEW_MAX: Final = 200  # characters of a body; to read it whole there are consumers
_SHOWN_BYTES: Final = 512 << 10  # of a RESULT, which is one message
_PREVIEW_BYTES: Final = 16 << 10  # what is larger is not decoded for its first words
_STEP_MESSAGES: Final = 64  # looked into in one go; then others have their turn
_WALKS_MAX: Final = 64  # verbs under way at once
_WHYS_MAX: Final = 8
_UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError, ValueError, OverflowError)


class OfList(Arguments):
    """`stream`: only that one."""

    stream: str = ""


class OfShow(Arguments):
    """`first`: from which offset on. `all`: those too that were sent back, or settled by a member of `redrive`."""

    stream: str
    first: Count = 0
    count: Count = SHOWN
    all: bool = False


class OfRedrive(Arguments):
    """`first`, `last`: of the dead-letter stream's offsets. `to`: a stream, for all its groups; else back to where they died."""

    stream: str
    count: Count | None = None
    to: str = ""
    first: Count = 0
    last: Count | None = None


class _Walk(ABC):
    """A verb that goes through the letters of a stream, in pieces, over turns.

    Attributes:
        at: the next offset to look at.
        left: messages that it may still take.
    """

    def __init__(self, log: StreamLog, group: Group, call: Call, first: int, last: int, left: int) -> None:
        self.log = log
        self.group = group
        self.call = call
        self.at = first
        self.last = last
        self.left = left

    @abstractmethod
    def following(self) -> tuple[int, int] | None:
        """The next messages to look at, side by side; None at the end."""

    def missing(self, first: int, last: int, *, is_lost: bool) -> None:
        """These are not there any more."""
        return

    @abstractmethod
    def take(self, split: Split, first: int, last: int, now: int) -> int:
        """Look at some of these, from the first on; bytes written. Raises UNREADABLE."""

    @abstractmethod
    def end(self) -> None:
        """Answer."""


class _Show(_Walk):
    """Rows of what there is."""

    def __init__(self, log: StreamLog, group: Group, call: Call, asked: OfShow) -> None:
        super().__init__(log, group, call, max(asked.first, log.first_offset), log.durable_next - 1, asked.count)
        self._all = asked.all
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def following(self) -> tuple[int, int] | None:
        if self.at > self.last or self.left <= 0 or self._bytes >= _SHOWN_BYTES:
            return None
        return (self.at, self.last) if self._all else next(self.group.settled.missing(self.at, self.last), None)

    def take(self, split: Split, first: int, last: int, now: int) -> int:
        last = min(last, first + min(self.left, _STEP_MESSAGES) - 1)
        for row in _rows(split, first, last):
            row["pending"] = row["offset"] not in self.group.settled
            self._rows.append(row)
            self._bytes += len(str(row))
            self.left -= 1
            self.at = row["offset"] + 1
            if self._bytes >= _SHOWN_BYTES:
                break
        return 0

    def end(self) -> None:
        is_more = self.at <= self.last and bool(self._rows)
        pending = self.group.pending(self.log.durable_next)
        self.call.tell(
            {"stream": self.log.name, "letters": self._rows, "next": self.at if is_more else None, "pending": pending}
        )


class _Redrive(_Walk):
    """Sends letters back."""

    def __init__(
        self, mover: Mover, group: Group, call: Call, log: StreamLog, asked: OfRedrive, settled: Callable[[Group], None]
    ) -> None:
        last = log.durable_next - 1 if asked.last is None else min(asked.last, log.durable_next - 1)
        left = log.next_offset if asked.count is None else asked.count
        super().__init__(log, group, call, max(asked.first, group.cursor), last, left)
        self._mover = mover
        self._to = asked.to
        self._settled = settled
        self._redriven = 0
        self._skipped: Counter[str] = Counter()
        self._stopped: LoadError | StorageError | None = None

    def following(self) -> tuple[int, int] | None:
        self.at = max(self.at, self.group.cursor)  # what a member of it has taken meanwhile is left to it
        if self.at > self.last or self.left <= 0 or self._stopped is not None:
            return None
        return next(self.group.settled.missing(self.at, self.last), None)

    def missing(self, first: int, last: int, *, is_lost: bool) -> None:
        self.group.settle_ahead(first, last, "lost" if is_lost else "expired")
        self._settled(self.group)

    def take(self, split: Split, first: int, last: int, now: int) -> int:
        if self._mover.hindrance:
            self._stopped = StorageFull(self._mover.hindrance)
            return 0
        last = min(last, first + min(self.left, LETTERS_MAX) - 1)
        homes = [self._home(headers) for headers in letters.headers_of(split, first, last)]
        same = next((place for place, home in enumerate(homes) if home != homes[0]), len(homes))
        last = first + same - 1
        stream, group, why = homes[0]
        if why:
            self._skipped[why] += same
            self.at = last + 1
            return 0
        return self._send(split, first, last, stream, group, now)

    def _home(self, headers: letters.Headers) -> tuple[str, str | None, str]:
        """The stream and group where a letter goes; or why it cannot."""
        if self._to:
            return self._to, None, ""
        stream, group = headers.get(letters.STREAM), headers.get(letters.GROUP)
        if not stream or not group:
            return "", None, "it is no dead letter: nothing says where it came from"
        log = self._mover.catalog.by_name.get(stream)
        if log is None:
            return "", None, f"there is no stream {stream!r} any more"
        if group not in log.groups:
            return "", None, f"stream {stream!r} has no group {group!r} any more"
        return stream, group, ""

    def _send(self, split: Split, first: int, last: int, stream: str, group: str | None, now: int) -> int:
        letter = letters.redriven(split, [(first, last)])
        while letter is None:
            last = first + (last - first) // 2
            letter = letters.redriven(split, [(first, last)])
        log = self._mover.catalog.by_name[stream]
        try:
            self._mover.check_room(log, letter, now)
        except StreamFull as error:
            self._stopped = error.anew()
            return 0
        operations = [["redriven", self.log.id, self.group.id, [(first, last)]]]
        _, size = self._mover.write(log, split.batch, letter, now, group=group, operations=operations)
        self.group.settle_ahead(first, last, "redriven")
        self._settled(self.group)
        self._redriven += letter.count
        self.left -= letter.count
        self.at = last + 1
        return size

    def end(self) -> None:
        durable_next = self.log.durable_next
        result = {
            "stream": self.log.name,
            "redriven": self._redriven,
            "skipped": self._skipped.total(),
            "why": [f"{counted(count, 'letter')}: {why}" for why, count in self._skipped.most_common(_WHYS_MAX)],
            "stopped": str(self._stopped or ""),
            "pending": self.group.pending(durable_next),
        }
        if self._stopped is not None and not self._redriven:
            self.call.fail(self._stopped)
        else:
            self.call.done(result)


class Redrives:
    """The verbs, and those that are under way.

    Args:
        touched: hears of a group of which the journal, or who gives up what is settled, must hear.
    """

    def __init__(self, mover: Mover, administration: Administration, touched: Callable[[Group], None]) -> None:
        self._mover = mover
        self._administration = administration
        self._touched = touched
        self._walks: dict[_Walk, None] = {}
        self._ready: dict[_Walk, None] = {}
        administration.add("list_dead", Verb(OfList, self._list))
        administration.add("show_dead", Verb(OfShow, self._show))
        administration.add("redrive_dead", Verb(OfRedrive, self._redrive, True))

    @property
    def has_more(self) -> bool:
        """Whether run() would do something."""
        return bool(self._ready) and not self._mover.is_behind

    def run(self, now: int) -> None:
        """A piece of each verb that is under way, round and round, until none is left or the turn is full."""
        ready, left = self._ready, TURN_BYTES
        while ready and left > 0 and not self._mover.is_behind:
            walk = next(iter(ready))
            del ready[walk]
            left -= self._step(walk, now)

    def _step(self, walk: _Walk, now: int) -> int:
        log, group = walk.log, walk.group
        following = walk.following() if self._mover.catalog.groups.get((log.id, group.id)) is group else None
        if following is None:
            del self._walks[walk]
            walk.end()
            return 0
        first, last = following
        number = log.find(first)
        missing = self._mover.readback.missing(log, number, first, last, None)
        if missing is not None:
            is_lost, last = self._mover.readback.fate(log, number, first, missing)
            walk.missing(first, last, is_lost=is_lost)
            walk.at = last + 1
            self._ready[walk] = None
            return _STEP_MESSAGES
        batch = self._mover.tail.get((log.id, number))
        if batch is None:
            self._mover.readback.fetch((self._wake, walk), log, number)
            return 0
        self._ready[walk] = None  # behind the others
        _, end, _ = batch.run(first - batch.base)
        try:
            split = self._mover.tail.split((log.id, number), batch)
            size = walk.take(split, first, min(last, batch.base + end), now)
        except UNREADABLE:
            self._mover.tail.unreadable()
            self._mover.readback.damaged.add((log.id, number))
            return _STEP_MESSAGES
        return size or TURN_BYTES // _STEP_MESSAGES

    def _wake(self, walk: _Walk) -> None:
        if walk in self._walks:
            self._ready[walk] = None

    def _begin(self, walk: _Walk) -> None:
        self._walks[walk] = self._ready[walk] = None

    # -- verbs ----------------------------------------------------------------------------------------------------

    def _letters_of(self, name: str) -> tuple[StreamLog, Group]:
        """A dead-letter stream and its group `redrive`. Raises NoSuchStream, BadArgument."""
        log = self._administration.stream_of(name)
        group = log.groups.get(REDRIVE)
        if group is None:
            raise BadArgument(f"stream {name!r} has had no dead letters; `zbroker dead list` shows those that have")
        if len(self._walks) >= _WALKS_MAX:
            raise Overloaded(f"{_WALKS_MAX} such commands are under way", retry_after_ms=1_000)
        return log, group

    def _list(self, asked: OfList, call: Call) -> None:
        if asked.stream:
            self._administration.stream_of(asked.stream)
        sources: dict[str, list[tuple[StreamLog, Group]]] = {}
        for log in self._mover.catalog.by_name.values():
            if REDRIVE in log.groups:
                sources.setdefault(log.name, [])
            for group in log.groups.values():
                if group.config.dead_letter:
                    sources.setdefault(group.config.dead_letter, []).append((log, group))
        names = [name for name in sorted(sources) if asked.stream in ("", name)]
        call.tell({"streams": [self._row(name, sources[name]) for name in names]})

    def _row(self, name: str, sources: list[tuple[StreamLog, Group]]) -> dict[str, Any]:
        log = self._mover.catalog.by_name.get(name)
        group = log.groups.get(REDRIVE) if log is not None else None
        row: dict[str, Any] = {"stream": name, "letters": 0, "pending": 0, "redriven": 0, "oldest_at": None}
        if log is not None and group is not None:
            row["letters"], row["redriven"] = log.messages, group.acked
            row["pending"] = group.pending(log.durable_next)
            if row["pending"]:
                row["oldest_at"] = log.published_of(max(group.settled.floor, log.first_offset))
        row["from"] = [
            {"stream": source.name, "group": one.name, "dead": one.dead, "doomed": one.doomed.count}
            for source, one in sources
        ]
        return row

    def _show(self, asked: OfShow, call: Call) -> None:
        if not 1 <= asked.count <= SHOWN_MAX:
            raise BadArgument(f"count {asked.count}: 1 to {SHOWN_MAX}; `next` of the result says where it goes on")
        self._begin(_Show(*self._letters_of(asked.stream), call, asked))

    def _redrive(self, asked: OfRedrive, call: Call) -> None:
        log, group = self._letters_of(asked.stream)
        if asked.to:
            check_name(asked.to, "stream")
            if asked.to == asked.stream:
                raise BadArgument(f"to {asked.to!r}: that is where they are")
            if asked.to not in self._mover.catalog.by_name:
                raise NoSuchStream(f"there is no stream {asked.to!r} to send them to; `zbroker stream create` makes it")
        if asked.last is not None and asked.last < asked.first:
            raise BadArgument(f"first {asked.first} is above last {asked.last}")
        self._begin(_Redrive(self._mover, group, call, log, asked, self._touched))


def _rows(split: Split, first: int, last: int) -> list[dict[str, Any]]:
    """What people are shown of these letters. Raises UNREADABLE."""
    batch = split.batch
    [place] = letters.places(batch, [(first, last)])
    columns, _ = split.pick([place])
    found = []
    for at, headers in enumerate(letters.headers_of(split, first, last)):
        found.append(
            {
                "offset": first + at,
                "reason": headers.get(letters.REASON, ""),
                "stream": headers.get(letters.STREAM, ""),
                "group": headers.get(letters.GROUP, ""),
                "origin_offset": _integer(headers.get(letters.OFFSET)),
                "attempts": _integer(headers.get(letters.ATTEMPTS)),
                "published_at": _integer(headers.get(letters.PUBLISHED_AT)),
                "died_at": batch.published_at,
                "redriven": _integer(headers.get(letters.REDRIVEN)) or 0,
                "key": None if columns.keys is msgspec.UNSET else columns.keys[at],
                "message_id": None if columns.ids is msgspec.UNSET else columns.ids[at],
                "headers": {name: value for name, value in headers.items() if not name.startswith("zb-")},
                "codec": str(batch.codec),
                "bytes": split.sizes[place.start + at],
                "body": preview(batch.codec, split.items[place.start + at]),
            }
        )
    return found


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) <= 16 else None


def preview(codec: Codec, item: Any) -> str:
    """The first words of a body, for people."""
    encoded = bytes(memoryview(item))
    if codec is Codec.MSGPACK:
        if len(encoded) > _PREVIEW_BYTES:
            return f"({len(encoded)} bytes of msgpack)"
        text = _text_of(encoded)
    else:
        text = _text(encoded[:_PREVIEW_BYTES])
    return text if len(text) <= PREVIEW_MAX else text[: PREVIEW_MAX - 1] + "\u2026"


def _text_of(encoded: bytes) -> str:
    try:
        body = msgspec.msgpack.decode(encoded)
    except _UNDECODABLE:
        return f"({len(encoded)} bytes that are no msgpack)"
    try:
        return msgspec.json.encode(body).decode()
    except _UNDECODABLE:
        return repr(body)


def _text(encoded: bytes) -> str:
    text = encoded.decode(errors="replace")
    return text if text.isprintable() else repr(encoded[:PREVIEW_MAX])


__all__ = ["PREVIEW_MAX", "SHOWN", "SHOWN_MAX", "OfList", "OfRedrive", "OfShow", "Redrives", "preview"]
