"""The broker's loop: one poll a turn, then receive, timers, journal, send. No protocol, no decision: the engine makes them.

A turn costs microseconds that every request pays twice, so there are no closures, no logging and no asyncio in it.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket as sockets_of_the_os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from types import FrameType
from typing import Any, Final, cast

import zmq
from zmq.backend import zmq_poll

from patterns.io import turn
from patterns.io.guard import Guard
from patterns.io.guard_account import wire_allowance
from patterns.io.journal import DistantJournal, Journal
from patterns.wire.engine import Close
from patterns.wire.frames import PUBLISH_PREFIX, Frames
from patterns.wire.limits import BATCH_BYTES_MAX, COLUMNS_BYTES_MAX, HEADER_BYTES_MAX
from zbroker.core.broker import BrokerEngine
from zbroker.core.effects import PLAIN_SUBSCRIBERS, Effect, Offer
from zbroker.processes.carrier import Carrier, has_stalled
from zbroker.processes.clocks import now_us
from zbroker.processes.logbook import Logbook
from zbroker.processes.news import news_of
from zbroker.processes.plain import PlainPorts
from zbroker.processes.reads import Reads
from zbroker.processes.suspects import Suspects

MESSAGES_PER_TURN: Final = 64  # 4 MiB of full batches: one commit's worth, and the longest that a timer waits
_DRAIN_QUIET_MS: Final = 20  # libzmq's I/O thread, stopped as we were, needs a moment to read what the kernel holds
_DRAIN_ROUNDS_MAX: Final = 10_000
_IDLE_MS: Final = 1_000  # so often an idle loop looks at the journal's state and at its own
_INFORM_US: Final = 1_000_000
_SEE_OFF_US: Final = (
    500_000  # a client that runs goes within milliseconds; who is stopped would not read in seconds either
)
_FILES_SPARE: Final = 32  # our own, and the journal's
_LINK: Final = 0
_MESSAGE_BYTES_MAX: Final = BATCH_BYTES_MAX + COLUMNS_BYTES_MAX + HEADER_BYTES_MAX
_HELLO: Final = b"ZB1H"
_POLLIN: Final = int(zmq.POLLIN)
_POLLBOTH: Final = int(zmq.POLLIN | zmq.POLLOUT)
_CONFIRMS_US: Final = (
    1_000_000  # for what was handed in before the end; a disk that takes longer is told of by the client
)
_NOWHERE: Final = (-1, 0)


class Loop:
    """Runs an engine on a ROUTER until a signal.

    Args:
        engine: decides.
        router: bound; belongs to this thread.
        guard: watches the router's connections; started.
        journal: open; None without streams.
        reads: serves what is read back from the journal's folder; None without streams.
        logbook: where people read what happened.
        plain: the sockets for programs without our protocol; bound, if they are wanted.
        drain_us: so long dispatched requests may take to finish when we are told to stop.
    """

    def __init__(
        self,
        engine: BrokerEngine,
        router: zmq.Socket[bytes],
        guard: Guard,
        journal: Journal | None,
        logbook: Logbook,
        plain: PlainPorts,
        drain_us: int = 0,
        reads: Reads | None = None,
    ) -> None:
        self._engine = engine
        self._router = router
        self._guard = guard
        self._journal = journal
        self._logbook = logbook
        self._bell_in, self._bell_out = sockets_of_the_os.socketpair()
        self._bell_in.setblocking(False)
        self._bell_out.setblocking(False)
        self._plain = plain
        self._sockets = [(socket, _POLLIN) for socket in (router, *plain.sockets)]
        self._sockets_by_fd = {int(socket.getsockopt(zmq.FD)): socket for socket, _ in self._sockets}
        self._poll = select.poll()
        for fd in (*self._sockets_by_fd, self._bell_in.fileno()):
            self._poll.register(fd, _POLLIN)
        self._guard_fd = guard.fileno()
        if self._guard_fd >= 0:
            self._poll.register(self._guard_fd, _POLLIN)
        self._reads = reads
        self._reads_fd = -1 if reads is None else reads.fileno()
        if self._reads_fd >= 0:
            self._poll.register(self._reads_fd, _POLLIN)
        self._distant = journal if isinstance(journal, DistantJournal) else None
        self._distant_entry = _NOWHERE  # of _poll
        self._peers: dict[int, bytes] = {}  # by fd, the routing id that was heard there last
        self._suspects = Suspects()
        send = partial(turn.send_routed, router)
        self._carrier = Carrier(engine, journal, send, self._do_other, turn.share, reads)
        self._informed_at = 0
        self._closings = 0  # of the guard's gates, as last told
        self._files_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._signals = 0
        self._stop_at: int | None = None
        self._drain_us = drain_us

    # -- life ----------------------------------------------------------------------------------------------------

    def run(self, announce: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT, then drain and say goodbye. A second signal ends the process at once.

        Args:
            announce: says that we serve; called when a signal would already end us in order.
        """
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGTERM, signal.SIGINT)}
        wakeup = signal.set_wakeup_fd(self._bell_out.fileno(), warn_on_full_buffer=False)
        try:
            self._inform(now_us())  # so that the first `status` is whole
            announce()
            while self._stop_at is None or not self._is_over():
                self.turn()
            self._await_confirms(now_us() + _CONFIRMS_US)
            self._logbook.write("info", "drained", requests_left=self._engine.under_way)
            self._engine.farewell()
            self._carrier.carry_out(now_us())
            self._see_off(now_us() + _SEE_OFF_US)
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._bell_in.close()
            self._bell_out.close()

    def _await_confirms(self, until: int) -> None:
        """What was handed in by now is confirmed before its producer hears GOODBYE."""
        awaited = self._carrier.awaited_index
        while self._carrier.awaited_index and self._journal_index < awaited and now_us() < until:
            self.turn()

    @property
    def _journal_index(self) -> int:
        return 0 if self._journal is None else self._journal.durable_index

    def _see_off(self, until: int) -> None:
        """Let peers go first, as they do when they hear GOODBYE: what a client has not read when its connection ends is lost."""
        polled: list[tuple[Any, int]] = [(self._router, _POLLIN)]
        if self._guard_fd >= 0:
            polled.append((self._guard_fd, _POLLIN))
        while self._peers and (now := now_us()) < until:
            zmq_poll(polled, max(1, (until - now) // 1_000))
            self._receive(now)
            self._hear_of_connections(now)
            self._carrier.carry_out(now)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            os._exit(128 + number)  # whoever asks twice does not want to wait for anything

    def _is_over(self) -> bool:
        assert self._stop_at is not None
        return self._engine.is_drained or now_us() >= self._stop_at

    # -- a turn --------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Wait for something to do, and do all of it once.

        What is due was asked before the poll. A timer that this turn's messages set is seen by the next turn.

        The descriptors of ZeroMQ's sockets wake once for all that has come, so what the last turn has left there is asked for
        first; to sleep in zmq_poll would be asking twice before and once after (DECISIONS.md, "What a turn costs").
        """
        due = self._next_due()
        if self._distant is not None:
            self._poll_journal(self._distant)
        left: list[tuple[Any, int]] = zmq_poll(self._sockets, 0)
        ready = self._poll.poll(0 if left else self._patience_ms(due, now_us()))
        now = now_us()
        for socket, _ in left:
            self._take_from(socket, now)
        if ready:
            self._take_in(ready, now)
        if due is not None and due <= now:
            if has_stalled(due, now):
                self._logbook.write("warning", "stalled", ms=(now - due) // 1_000)
            now = self._carrier.expire(due, now, self._drain_sockets)
            for peer in self._suspects.take(now):
                self._engine.suspect(_LINK, peer)
        if self._guard_fd < 0:
            self._hear_of_connections(now)  # without a guard's fd there is nothing to poll
        self._carrier.carry_out(now)
        if now - self._informed_at >= _INFORM_US:
            self._inform(now)
        if self._engine.has_events:
            for event in self._engine.events():
                level, name, fields = news_of(event)
                self._logbook.write(level, name, **fields)
        if self._signals and self._stop_at is None:
            self._stop_at = now + self._drain_us
            self._logbook.write("info", "draining", requests=self._engine.under_way)
            self._engine.drain(now)
            self._carrier.carry_out(now)

    def _poll_journal(self, journal: DistantJournal) -> None:
        """Its descriptor is another one after a restart; room to send is asked for only while something waits."""
        entry = (journal.fileno(), _POLLBOTH if journal.is_blocked else _POLLIN)
        if entry != self._distant_entry:
            if self._distant_entry[0] >= 0:
                self._poll.unregister(self._distant_entry[0])
            if entry[0] >= 0:
                self._poll.register(*entry)
            self._distant_entry = entry

    def _next_due(self) -> int | None:
        """The earliest instant at which anything of ours is due."""
        due, proof = self._carrier.next_timeout(), self._suspects.due
        return proof if due is None or (proof is not None and proof < due) else due

    def _patience_ms(self, due: int | None, now: int) -> int:
        """How long the poll may last, rounded up: a timer a moment late costs nothing, a turn too early costs a turn."""
        if self._carrier.has_appended or (self._signals and self._stop_at is None):
            return 0
        if due is None or due - now >= _IDLE_MS * 1_000:
            return _IDLE_MS
        return max(0, (due - now + 999) // 1_000)

    def _take_from(self, socket: zmq.Socket[bytes], now: int) -> None:
        """More has come than the last turn took: as much as a turn may take."""
        if socket is self._router:
            if self._receive_one(now):
                self._receive(now)
        else:
            self._plain.receive(socket, self._engine, now)

    def _take_in(self, ready: list[tuple[int, int]], now: int) -> None:
        for fd, _ in ready:
            socket = self._sockets_by_fd.get(fd)
            if socket is self._router:
                self._receive_one(now)  # and if it is not the only one, the next turn takes the others
                if self._distant is not None:
                    self._carrier.commit_early(now)
            elif socket is not None:
                self._plain.receive(socket, self._engine, now)
            elif fd == self._guard_fd:
                self._hear_of_connections(now)
            elif fd == self._distant_entry[0]:
                assert self._distant is not None
                self._carrier.hear(self._distant, now)
            elif fd != self._reads_fd:  # its answers are the carrier's, after the commit
                self._bell_in.recv(64)

    def _receive_one(self, now: int) -> bool:
        """Hand one message to the engine, if there is one.

        What it leads to leaves before anything is booked, and before anybody looks for a second one: who asks one thing at
        a time waits for it.
        """
        message = turn.take_routed(self._router, PUBLISH_PREFIX)
        if message is None:
            return False
        peer, frames, fd = message
        self._engine.receive(_LINK, peer, frames, now)
        if fd >= 0 and frames and frames[0] == _HELLO:
            self._allow(fd, peer)
        self._carrier.do(self._engine.effects(), now)
        if fd >= 0:
            self._book(peer, frames, fd, now)
        return True

    def _receive(self, now: int) -> None:
        """Hand what is there to the engine, up to a turn's worth."""
        for peer, frames, fd in turn.receive_routed_many(self._router, MESSAGES_PER_TURN - 1, lent=PUBLISH_PREFIX):
            self._engine.receive(_LINK, peer, frames, now)
            if fd >= 0:
                if frames and frames[0] == _HELLO:
                    self._allow(fd, peer)
                self._book(peer, frames, fd, now)

    def _book(self, peer: bytes, frames: Frames, fd: int, now: int) -> None:
        """A message that was handed in: for the guard, and for who notices that a connection has another owner."""
        self._guard.delivered(fd, sum(map(len, frames)), len(frames))
        if self._peers.get(fd) != peer:
            self._note_peer(fd, peer, now)

    def _allow(self, fd: int, peer: bytes) -> None:
        """Before READY leaves: what this connection may have under way from now on."""
        size, messages = self._engine.allowance(_LINK, peer)
        self._guard.allow(fd, wire_allowance(size, messages, _MESSAGE_BYTES_MAX) if messages else 0)

    def _drain_sockets(self) -> int:
        """After a stall: take in what peers sent meanwhile, as fast as libzmq has it; returns the time then."""
        for _ in range(_DRAIN_ROUNDS_MAX):
            if not zmq_poll(self._sockets[:1], _DRAIN_QUIET_MS):
                break
            self._receive(now_us())
            self._carrier.carry_out(now_us())
        return now_us()

    # -- connections ---------------------------------------------------------------------------------------------

    def _note_peer(self, fd: int, peer: bytes, now: int) -> None:
        """A new connection on this fd number: whoever had it before is gone."""
        before = self._peers.get(fd)
        self._peers[fd] = peer
        if before is not None:
            self._suspects.add(before, now)

    def _hear_of_connections(self, now: int) -> None:
        for notice in self._guard.notices():
            if notice.bound is not self._router:
                self._plain.noticed(notice, self._engine, now)
            elif not notice.connected:
                peer = self._peers.pop(notice.fd, None)
                if peer is not None:
                    self._suspects.add(peer, now)

    # -- what the engine wants of plain sockets --------------------------------------------------------------------

    def _do_other(self, effect: Effect) -> None:
        if isinstance(effect, Offer):
            if left_out := self._plain.offer(effect.messages):
                self._engine.not_offered(left_out)
            return
        assert isinstance(effect, Close)
        if effect.link == PLAIN_SUBSCRIBERS:  # a session is forgotten only: libzmq itself cannot close one connection
            self._plain.close_peer(effect.peer)

    # -- status ----------------------------------------------------------------------------------------------------

    def _inform(self, now: int) -> None:
        """Refresh the sections of `status` that only we know, and try again what no file could be opened for."""
        self._informed_at = now
        self._carrier.read_again()
        if self._journal is not None:
            self._inform_of_journal(self._journal.status())
        if self._reads is not None:
            self._engine.inform("reads", self._reads.status())
            self._engine.warn("reads", self._reads.complaint())
        report = asdict(self._guard.report())
        if report["available"] and not report["is_running"]:
            self._engine.warn("guard", "the connection guard has died: floods are not cut any more; restart the broker")
        is_close = report["connections"] + _FILES_SPARE > self._files_max
        text = f"{report['connections']} connections, at most {self._files_max} open files: raise the limit (ulimit -n)"
        self._engine.warn("files", text if is_close else "")
        self._inform_of_gate(report["closings"], report.pop("is_closed"))
        for section in ("cuts", "handshakes_failed"):
            report[section] = {kind.value: count for kind, count in report[section].items()}
        for cut in report["recent"]:
            cut["reason"] = cut["reason"].value
        self._engine.inform("guard", report)
        self._inform_of_log()

    def _inform_of_gate(self, closings: int, is_closed: bool) -> None:
        is_closing = is_closed or closings > self._closings
        self._closings = closings
        text = "plain subscribers: new connections wait for a moment, more come and go than can be worked off; see who connects to --xpub"
        self._engine.warn("gate", text if is_closing else "")

    def _inform_of_log(self) -> None:
        self._logbook.tell_suppressed()
        self._engine.inform("log", self._logbook.status())
        text = "standard error takes no more log lines, they are dropped: whoever reads them has stopped"
        self._engine.warn("log", text if self._logbook.is_stuck else "")

    def _inform_of_journal(self, status: dict[str, object]) -> None:
        self._engine.inform("journal", status)
        for text in cast("list[str]", status.get("warnings", [])):
            self._engine.warn(f"journal: {text}", text)
