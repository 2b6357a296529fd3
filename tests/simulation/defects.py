"""Production code with a fault planted in it, for proof that the simulation finds such faults. Nothing else uses it.

Each is a handful of lines that somebody could have written; no checker was made for any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace

from patterns.wire.configs import StreamConfig
from patterns.wire.messages import Hello, Ready, Settle
from patterns.wire.server import Session
from zbroker.core import intake
from zbroker.core.captures import Captures
from zbroker.core.catalog import Catalog
from zbroker.core.consumers import Consumers
from zbroker.core.dead_letters import Mover
from zbroker.core.groups import Group
from zbroker.core.intake import Intake
from zbroker.core.log import StreamLog
from zbroker.core.message_ids import MessageIds
from zbroker.core.producers import Accepted, Producer, Producers
from zbroker.core.relays import Relays, _parts_of
from zbroker.core.removal import Removal
from zbroker.core.retention import _Account
from zbroker.core.tail import Batch
from zbroker.processes.carrier import Carrier
from zbroker.store import journal, writer
from zbroker.store.liveness import Liveness
from zbroker.store.recovery import UNBOUNDED, LogScan
from zbroker.store.writer import LogWriter

Patch = tuple[Any, str, Any]


class Defects:
    """What a run is made of: the classes of production, and what a defect replaces in them."""

    patches: tuple[Patch, ...] = ()

    @classmethod
    @contextmanager
    def planted(cls) -> Iterator[None]:
        """In force as long as a run lasts."""
        with ExitStack() as stack:
            for target, name, replacement in cls.patches:
                stack.enter_context(patch.object(target, name, replacement))
            yield


class ConfirmBeforeSync(Defects):
    """The journal says durable what the page cache holds."""

    patches = ((LogWriter, "_sync", lambda self, handle: None),)


def _truncate(self: LogScan, *_: Any) -> None:
    self._ended = True


class DamageTruncated(Defects):
    """The first record that cannot be read is taken for the end, wherever it stands."""

    patches = ((LogScan, "_anomaly", _truncate), (LogScan, "_rotten_body", _truncate))


_recover = Group.recover


def _recover_without_attempts(self: Group, what: str, value: Any) -> None:
    if what != "attempts":
        _recover(self, what, value)


class AttemptsForgotten(Defects):
    """After a restart each message that is delivered again is delivered for the second time."""

    patches = ((Group, "recover", _recover_without_attempts),)


_apply = Consumers._apply


def _apply_any(self: Consumers, session: Session, header: Settle, now: int, *rest: Any) -> int:
    stale = _apply(self, session, header, now, *rest)
    member = self._members.get(session)
    if stale and header.action == "ack" and member is not None and member.feed.group is not None:
        group = member.feed.group
        for first, last in header.ranges:
            group.acked += group.settled.add(first, last)
        self._dirty[group] = None
        return 0
    return stale


class StaleAckAccepted(Defects):
    """An ack counts, whoever holds the message by now."""

    patches = ((Consumers, "_apply", _apply_any),)


_admit = Consumers.admit


def _admit_and_give_back(self: Consumers, session: Session, hello: Hello, ready: Ready, now: int) -> None:
    _admit(self, session, hello, ready, now)
    member = self._members.get(session)
    if member is not None and ready.resumed:
        for lease in list(member.leases):
            lease.group.settle(lease, [], "release")
            member.leases.keep(lease)
        self._deliveries.wake_feed(member.feed)


class ResumeWithoutReadoption(Defects):
    """A session that comes back is told that it is resumed, and its leases are given to others."""

    patches = ((Consumers, "admit", _admit_and_give_back),)


_admit_batch = Producer.admit


def _admit_any_order(self: Producer, header: Any, crc: int) -> Accepted | None:
    if header.producer == self.id and header.producer_epoch == self.epoch and header.sequence > self.sequence:
        return None
    return _admit_batch(self, header, crc)


class PreviousIgnored(Defects):
    """A batch is taken though the one before it was refused."""

    patches = ((Producer, "admit", _admit_any_order),)


def _write_once(disk: Any, handle: int, parts: Any, offset: int) -> int:
    disk.pwritev(handle, parts, offset)
    return sum(map(len, parts))


class ShortWriteIgnored(Defects):
    """What a write has not taken is not written again."""

    patches = ((writer, "write_whole", _write_once),)


class VoidRuleForgotten(Defects):
    """What a life could not confirm comes back at the second start."""

    patches = ((LogScan, "_bound", lambda self, place: UNBOUNDED),)


_expire = Carrier.expire


def _expire_unheard(self: Carrier, due: int, now: int, hear: Callable[[], int]) -> int:
    return _expire(self, now, now, hear)


class TimersBeforeAcks(Defects):
    """After a stall what expired is judged before what was sent in time is heard."""

    patches = ((Carrier, "expire", _expire_unheard),)


_replay = journal.replay


def _replay_behind_the_index(disk: Any, files: Any, visit: Any, meta: Any, note: Any) -> Any:
    upto = 0 if meta is None else meta.last_index

    def visit_the_rest(record: Any, position: Any) -> None:
        if record.index > upto:
            visit(record, position)

    return _replay(disk, files, visit_the_rest, meta, note)


class IndexTrustedOverLog(Defects):
    """A checkpoint was cut over many turns, and what stands in the log meanwhile is not read, for it "has it all"."""

    patches = ((journal, "replay", _replay_behind_the_index),)


_wanted = Liveness.wanted


def _wanted_but_the_last(self: Liveness, stream_id: int, first: int, last: int) -> list[Any]:
    ranges = _wanted(self, stream_id, first, last)
    if len(ranges) > 1 and ranges[-1][0] == ranges[-1][1]:
        ranges.pop()
    return ranges


class LiveMessageCutOut(Defects):
    """A compaction takes a message for dead that stands alone at the end of what is wanted of a batch."""

    patches = ((Liveness, "wanted", _wanted_but_the_last),)


def _forget_at_once(self: Removal, durable_index: int) -> None:
    _forget(self, 1 << 62)


_forget = Removal.forget


class GivenUpBeforeDurable(Defects):
    """What nobody is owed is given up before it is on the disk that nobody is."""

    patches = ((Removal, "forget", _forget_at_once),)


_give_up = _Account._give_up


def _give_up_for_one(self: _Account, number: int, most: int, keeps: bool) -> list[Any]:
    groups = self.log.groups
    self.log.groups = dict(list(groups.items())[:1])
    try:
        return _give_up(self, number, most, keeps)
    finally:
        self.log.groups = groups


class GivenUpThoughOwed(Defects):
    """Retention asks the first group of a stream only whether it is owed a message."""

    patches = ((_Account, "_give_up", _give_up_for_one),)


def _recover_without_delays(self: Group, what: str, value: Any) -> None:
    if what != "delayed":
        _recover(self, what, value)


class DelayForgotten(Defects):
    """After a restart what was to wait for its time comes at once."""

    patches = ((Group, "recover", _recover_without_delays),)


def _recover_attempts_of_one(self: Group, what: str, value: Any) -> None:
    if what == "attempts":
        value = [[first, last, max(1, tries)] for first, last, tries in value]
    _recover(self, what, value)


class ReleaseTakenAsAttempt(Defects):
    """After a restart what was given back before anybody began with it counts as delivered once."""

    patches = ((Group, "recover", _recover_attempts_of_one),)


_write_letter = Mover.write


def _write_without_ack(self: Mover, *arguments: Any, operations: Any = None, **fields: Any) -> tuple[int, int]:
    return _write_letter(self, *arguments, **fields)


class LetterWithoutAck(Defects):
    """A dead letter is written, and the record does not say that its group is done with the message."""

    patches = ((Mover, "write", _write_without_ack),)


class PauseForgotten(Defects):
    """A group that was paused goes on after a restart."""

    patches = ((Catalog, "_recover_group", lambda self, group, value: None),)


def _forget_ids(self: MessageIds, *_: Any) -> None:
    self._recovered.clear()


_recover_stream = Catalog._recover_stream


def _recover_stream_without(what_not: str) -> Callable[..., None]:
    def recover(self: Catalog, index: int, what: str, stream_id: int, values: list[Any]) -> None:
        if what != what_not:
            _recover_stream(self, index, what, stream_id, values)

    return recover


class PurgeForgotten(Defects):
    """After a restart a stream begins where it began before a purge."""

    patches = ((Catalog, "_recover_stream", _recover_stream_without("purged")),)


class StreamDeletionForgotten(Defects):
    """After a restart a stream that was deleted is there again, with its groups."""

    patches = ((Catalog, "_recover_stream", _recover_stream_without("deleted")),)


class GroupDeletionForgotten(Defects):
    """The same of a group."""

    patches = ((Catalog, "_recover_stream", _recover_stream_without("group_deleted")),)


_dismiss = Consumers.dismiss


def _dismiss_first(self: Consumers, log: StreamLog, group: Group | None, why: Any) -> None:
    _dismiss(self, log, group or next(iter(log.groups.values()), None), why)


class MembersNotDismissed(Defects):
    """Of a stream that is deleted, only the members of its first group hear so."""

    patches = ((Consumers, "dismiss", _dismiss_first),)


class MessageIdsForgotten(Defects):
    """After a restart no message id is known."""

    patches = ((MessageIds, "opened", _forget_ids),)


_restore_ids = MessageIds.restore


def _restore_last_piece(self: MessageIds, *columns: Any) -> None:
    self._recovered.clear()
    _restore_ids(self, *columns)


class LastPieceOfIds(Defects):
    """Of a checkpoint's message ids those of the last piece are known."""

    patches = ((MessageIds, "restore", _restore_last_piece),)


_trim_ids = MessageIds.trim


def _trim_by_age(self: MessageIds, config: StreamConfig, now_ms: int) -> None:
    _trim_ids(self, replace(config, dedup_ids_max=1 << 40), now_ms)


class MessageIdsKeptTooLong(Defects):
    """A message is taken for known though more ids have come since than the stream is to remember."""

    patches = ((MessageIds, "trim", _trim_by_age),)


_recover_entry = Producers.recover_entry


def _recover_but_repeated(self: Producers, index: int, entry: list[Any]) -> None:
    if entry[0] != "repeated":
        _recover_entry(self, index, entry)


class RepeatedForgotten(Defects):
    """After a restart a batch of which nothing was stored, as its ids were known, is a new one when it comes again."""

    patches = ((Producers, "recover_entry", _recover_but_repeated),)


_capture = Captures.take


def _take_from_anywhere(
    self: Captures, session: Any, message: Any, columns: Any, topics: list[str], now: int, origin: Any = None
) -> None:
    _capture(self, session, message, columns, topics, now)


class CaptureGoesRound(Defects):
    """What a producer has stored in a stream is stored there again, since the stream's topics name it."""

    patches = ((Captures, "take", _take_from_anywhere),)


def _take_twice(self: Captures, session: Any, message: Any, columns: Any, topics: list[str], *rest: Any) -> None:
    for topic in topics:
        _capture(self, session, message, columns, [topic], *rest)


class CapturedForEachTopic(Defects):
    """A batch with two topics is stored for each of them, in whole."""

    patches = ((Captures, "take", _take_twice),)


def _tell_at_once(self: Relays, index: int, log: StreamLog, batch: Batch) -> None:
    for part in _parts_of(batch):
        self._send(log, *part, 0)


class ToldBeforeDurable(Defects):
    """What a producer sends with a topic is told live before it is on disk."""

    patches = ((Relays, "expect", _tell_at_once),)


def _await_and_grant(self: Intake, feeder: Any, entry: Any) -> None:
    _await(self, feeder, entry)
    self._regrant(feeder)


_await = Intake._await


def _grant_whole(self: Intake, feeder: Any) -> None:
    self._sessions.regrant(feeder.session, intake.CREDIT_MESSAGES, intake.CREDIT_BYTES)


class ProducersNotHeldBack(Defects):
    """A producer's credit is renewed whatever of it is not on disk yet."""

    patches = ((Intake, "_regrant", _grant_whole), (Intake, "_await", _await_and_grant))


PLANTED: dict[str, type[Defects]] = {
    defect.__name__: defect
    for defect in (
        ConfirmBeforeSync,
        DamageTruncated,
        AttemptsForgotten,
        StaleAckAccepted,
        IndexTrustedOverLog,
        ResumeWithoutReadoption,
        PreviousIgnored,
        ShortWriteIgnored,
        VoidRuleForgotten,
        TimersBeforeAcks,
        LiveMessageCutOut,
        GivenUpBeforeDurable,
        GivenUpThoughOwed,
        DelayForgotten,
        ReleaseTakenAsAttempt,
        LetterWithoutAck,
        PauseForgotten,
        PurgeForgotten,
        StreamDeletionForgotten,
        GroupDeletionForgotten,
        MembersNotDismissed,
        MessageIdsForgotten,
        LastPieceOfIds,
        MessageIdsKeptTooLong,
        RepeatedForgotten,
        CaptureGoesRound,
        CapturedForEachTopic,
        ToldBeforeDurable,
        ProducersNotHeldBack,
    )
}
