"""Verbs about streams and groups (SPEC.md 10): each has its arguments, does one thing, and is answered when that is on disk."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from patterns.wire import codec
from patterns.wire.configs import GroupConfig, StreamConfig, changes, config_of, start_of
from patterns.wire.errors import (
    AlreadyExists,
    BadArgument,
    NoSuchGroup,
    NoSuchStream,
    StorageFailed,
    TooLarge,
    ZbrokerError,
)
from patterns.wire.messages import Admin, Codec, Count, Join, Result
from patterns.wire.names import check_name
from patterns.wire.server import Session, Sessions
from zbroker.core.accounts import Accounts
from zbroker.core.catalog import Catalog, Recorder
from zbroker.core.consumers import Consumers, check_start
from zbroker.core.groups import Group
from zbroker.core.log import StreamLog

_ROWS_MAX: Final = 500  # of a list in one RESULT: with the longest names they are no more than a message holds
_S = TypeVar("_S", bound="Arguments")

# (index, call): the call is made when the record of that index is on disk; None: the next OPS
Promise = Callable[[int | None, Callable[[], None]], None]


class Arguments(msgspec.Struct, forbid_unknown_fields=True):
    """Of a verb: what is not a field of it was meant to mean something, and is refused."""


class OfConfig(Arguments):
    """Of create_stream and create_group. `change`: what is there gets this configuration; `dry_run`: only say what would happen."""

    config: dict[str, Any]
    dry_run: bool = False
    change: bool = False


class OfStream(Arguments):
    stream: str


class OfGroup(Arguments):
    stream: str
    group: str


class OfLists(Arguments):
    """`skip`: so many rows were told before. `stream`: only its groups."""

    stream: str = ""
    skip: Count = 0


class OfReset(Arguments):
    """`start` as in JOIN; left away: that of the group's configuration."""

    stream: str
    group: str
    start: str | Count | None = None
    published_at: Count | None = None


class Call:
    """One verb that was asked for, and its answer, which may come in a later turn."""

    __slots__ = ("_answer", "_recorder", "_refuse", "now", "wall_ms")

    def __init__(
        self,
        recorder: Recorder,
        answer: Callable[[int, object], None],
        refuse: Callable[[ZbrokerError], None],
        now: int,
        wall_ms: int,
    ) -> None:
        self._recorder = recorder
        self._answer = answer
        self._refuse = refuse
        self.now = now
        self.wall_ms = wall_ms

    def tell(self, result: object) -> None:
        """Answer at once: nothing was changed."""
        self._answer(0, result)

    def done(self, result: object) -> None:
        """Answer once all that was written so far is on disk."""
        self._answer(self._recorder.last_index, result)

    def fail(self, error: ZbrokerError) -> None:
        """It cannot be."""
        self._refuse(error)


class Verb(NamedTuple):
    """What it takes, what it does, and whether it writes: then not to a disk that has failed."""

    arguments: type[Any]
    act: Callable[[Any, Call], None]
    writes: bool = False


class Administration:
    """The door for verbs; other parts bring theirs with add().

    Args:
        promise: makes a call once a record is on disk.
        configured: hears of a stream whose configuration is new.
        group_configured: hears of such a group.
        wall_ms: the broker's own clock in ms at an instant of the engine's.
    """

    def __init__(
        self,
        sessions: Sessions,
        catalog: Catalog,
        recorder: Recorder,
        consumers: Consumers,
        accounts: Accounts,
        promise: Promise,
        configured: Callable[[StreamLog], None],
        group_configured: Callable[[Group], None],
        wall_ms: Callable[[int], int],
    ) -> None:
        self._sessions = sessions
        self._catalog = catalog
        self._recorder = recorder
        self._consumers = consumers
        self._accounts = accounts
        self._promise = promise
        self._configured = configured
        self._group_configured = group_configured
        self._wall_ms = wall_ms
        self._verbs: dict[str, Verb] = {
            "create_stream": Verb(OfConfig, self._create_stream, True),
            "list_streams": Verb(OfLists, self._list_streams),
            "show_stream": Verb(OfStream, self._show_stream),
            "create_group": Verb(OfConfig, self._create_group, True),
            "list_groups": Verb(OfLists, self._list_groups),
            "show_group": Verb(OfGroup, self._show_group),
            "reset_group": Verb(OfReset, self._reset_group, True),
            "pause_group": Verb(OfGroup, self._pause_group, True),
            "resume_group": Verb(OfGroup, self._resume_group, True),
        }

    def add(self, name: str, verb: Verb) -> None:
        """One more verb."""
        self._verbs[name] = verb

    @property
    def verbs(self) -> list[str]:
        """All names, in order."""
        return sorted(self._verbs)

    def ask(self, session: Session, header: Admin, now: int) -> None:
        """An ADMIN came."""

        def refuse(error: ZbrokerError) -> None:
            self._sessions.refuse(session, error, "command", header.id)

        def answer(index: int, result: object) -> None:
            self._promise(index, lambda: _answer(self._sessions, session, header.id, result))

        verb = self._verbs.get(header.verb)
        try:
            if verb is None:
                raise BadArgument(f"verb {header.verb[:64]!r} is not known here; there are {', '.join(self.verbs)}")
            if verb.writes and self._recorder.failed:
                raise StorageFailed("the broker's disk failed; nothing is changed until it is started again")
            arguments = _arguments(header, verb.arguments)
            verb.act(arguments, Call(self._recorder, answer, refuse, now, self._wall_ms(now)))
        except ZbrokerError as error:
            refuse(error)

    # -- what a verb names -----------------------------------------------------------------------------------------

    def stream_of(self, name: str) -> StreamLog:
        """Raises NoSuchStream, BadName."""
        log = self._catalog.by_name.get(check_name(name, "stream"))
        if log is None:
            raise NoSuchStream(f"there is no stream {name!r}; `zbroker stream list` shows those that are")
        return log

    def group_of(self, stream: str, name: str) -> tuple[StreamLog, Group]:
        """Raises NoSuchStream, NoSuchGroup, BadName."""
        log = self.stream_of(stream)
        group = log.groups.get(check_name(name, "group"))
        if group is None:
            known = ", ".join(sorted(log.groups)[:10]) or "none"
            raise NoSuchGroup(f"stream {stream!r} has no group {name!r}; it has {known}")
        return log, group

    # -- streams ---------------------------------------------------------------------------------------------------

    def _create_stream(self, asked: OfConfig, call: Call) -> None:
        config = config_of(StreamConfig, asked.config)
        log = self._catalog.by_name.get(config.name)
        changed = _changes(log.config if log else config, config, asked, f"stream {config.name!r}")
        result = {"name": config.name, "created": log is None, "changes": changed, "dry_run": asked.dry_run}
        if asked.dry_run:
            call.tell(result)
            return
        if log is not None and not changed:
            call.done(result)  # whoever made it may be gone, and it be on no disk yet
            return
        log = self._catalog.configured(self._catalog.stream(config.name), config)
        self._configured(log)
        call.done(result)

    def _list_streams(self, asked: OfLists, call: Call) -> None:
        logs = list(self._catalog.by_name.values())
        page = logs[asked.skip : asked.skip + _ROWS_MAX]
        rows = [{"name": log.name, **self._accounts.stream(log)} for log in page]
        call.tell({"streams": rows, "count": len(logs)})

    def _show_stream(self, asked: OfStream, call: Call) -> None:
        call.tell(self._accounts.stream_whole(self.stream_of(asked.stream)))

    # -- groups ----------------------------------------------------------------------------------------------------

    def _create_group(self, asked: OfConfig, call: Call) -> None:
        config = config_of(GroupConfig, asked.config)
        log = self._catalog.by_name.get(config.stream)
        group = log.groups.get(config.name) if log else None
        self._check_dead_letters(config)
        what = f"group {config.name!r} of stream {config.stream!r}"
        changed = _changes(group.config if group else config, config, asked, what)
        start = self._consumers.start_of(log or StreamLog(0, config.stream), _join_of(config.start))
        result = {
            "stream": config.stream,
            "name": config.name,
            "created": group is None,
            "changes": changed,
            "dry_run": asked.dry_run,
        }
        if asked.dry_run:
            call.tell(result)
            return
        if group is not None and not changed:
            call.done(result)  # as for a stream
            return
        log = self._catalog.stream(config.stream)
        group = group or self._catalog.group(log, config.name, start)
        self._catalog.group_configured(group, config)
        self._group_configured(group)
        call.done(result)

    def _check_dead_letters(self, config: GroupConfig) -> None:
        """Dead letters of dead letters may go on, but not in a circle. Raises BadArgument."""
        way, seen = [config.dead_letter], {""}
        while way:
            name = way.pop()
            if name == config.stream:
                raise BadArgument(
                    f"dead_letter {config.dead_letter!r}: its groups send their dead letters back to stream {config.stream!r}"
                )
            log = self._catalog.by_name.get(name)
            if name not in seen and log is not None:
                way += [group.config.dead_letter for group in log.groups.values()]
            seen.add(name)

    def _list_groups(self, asked: OfLists, call: Call) -> None:
        logs = [self.stream_of(asked.stream)] if asked.stream else list(self._catalog.by_name.values())
        pairs = [(log, group) for log in logs for group in log.groups.values()]
        rows = [
            {"stream": log.name, "name": group.name, **self._accounts.group(log, group, call.wall_ms)}
            for log, group in pairs[asked.skip : asked.skip + _ROWS_MAX]
        ]
        call.tell({"groups": rows, "count": len(pairs)})

    def _show_group(self, asked: OfGroup, call: Call) -> None:
        call.tell(self._accounts.group_whole(*self.group_of(asked.stream, asked.group), call.wall_ms))

    def _reset_group(self, asked: OfReset, call: Call) -> None:
        log, group = self.group_of(asked.stream, asked.group)
        join = _join_of(group.config.start)
        if asked.start is not None:
            join = Join(id=0, stream=asked.stream, start=asked.start, published_at=asked.published_at)
            check_start(join)
        start = self._consumers.start_of(log, join)
        self._consumers.reset(log, group, start)
        self._configured(log)  # what the older account was owed may go
        call.done({"stream": log.name, "name": group.name, "start": start, "next": log.durable_next})

    def _pause_group(self, asked: OfGroup, call: Call) -> None:
        self._set_paused(asked, call, is_paused=True)

    def _resume_group(self, asked: OfGroup, call: Call) -> None:
        self._set_paused(asked, call, is_paused=False)

    def _set_paused(self, asked: OfGroup, call: Call, *, is_paused: bool) -> None:
        log, group = self.group_of(asked.stream, asked.group)
        result = {"stream": log.name, "name": group.name, "paused": is_paused, "was": group.is_paused}
        if group.is_paused is is_paused:
            call.done(result)  # whoever asked before may be gone, and what he changed be on no disk yet
            return
        self._catalog.paused(group, is_paused=is_paused)
        self._consumers.configured(group)
        call.done(result)


def _changes(old: Any, new: Any, asked: OfConfig, what: str) -> list[dict[str, Any]]:
    """What would change of something that is there. Raises AlreadyExists, unless that is asked for."""
    found = [
        {"field": field, "before": before, "after": after, "applies": applies}
        for field, before, after, applies in changes(old, new)
    ]
    if found and not (asked.change or asked.dry_run):
        differs = ", ".join(f"{one['field']} is {one['before']!r}, not {one['after']!r}" for one in found)
        raise AlreadyExists(f"{what} is there and differs: {differs}; say change=True (--change) to change it")
    return found


def _join_of(start: object) -> Join:
    """The start of a configuration as a JOIN has it. Raises BadArgument."""
    found = start_of(start)  # type: ignore[arg-type]
    if isinstance(found, datetime):
        return Join(id=0, stream="", start="time", published_at=max(0, int(found.timestamp() * 1_000)))
    return Join(id=0, stream="", start=found)


def _arguments(header: Admin, kind: type[_S]) -> _S:
    try:
        return msgspec.convert(header.arguments, kind)
    except msgspec.ValidationError as error:
        raise BadArgument(f"{header.verb}: {error}") from error


def _answer(sessions: Sessions, session: Session, id: int, result: object) -> None:
    used = Codec.JSON if session.codec is Codec.JSON else Codec.MSGPACK
    try:
        payload = codec.encode_body(used, [result])
    except TooLarge as error:
        sessions.refuse(session, error, "command", id)
        return
    sessions.answer(session, Result(id=id, codec=used), payload=payload)


__all__ = ["Administration", "Arguments", "Call", "OfGroup", "OfStream", "Verb"]
