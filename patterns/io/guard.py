"""The connection guard: cuts a TCP peer whose bytes pile up inside libzmq, where no high-water mark and no
credit can see them. It compares what the kernel received on a connection with what our loop was handed from it,
in a thread of its own, since a flood must also be cut while the loop waits for a disk. No protocol lives here.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import zmq

from patterns.io.guard_account import (
    FLOODS,
    FRAME_OVERHEAD_BYTES,
    RECENT_MAX,
    SESSIONLESS_BYTES_MAX,
    SETTLE_US,
    TRIM_AFTER_US,
    TRIM_BYTES_MIN,
    Account,
    Cut,
    CutReason,
    GuardReport,
    HandshakeFailure,
    crowd_cuts,
    memory_cuts,
)
from patterns.io.guard_backlog import Backlog
from patterns.io.guard_gate import Gate
from patterns.io.guard_kernel import Kernel, available, borrow, cookie_of, queued_bytes
from patterns.io.guard_monitor import CONNECTIONS, HANDSHAKE_FAILURES, MONITORED, Monitor, Notice, port_of
from patterns.wire.holdings import Holdings
from patterns.wire.limits import PEER_PREFIXES_BYTES_MAX, PEER_PREFIXES_BYTES_MAX_OF_ALL

INTERVAL_S: Final = 0.05
"""A flood enters libzmq at 0.3 to 1 GB/s on loopback: at most 50 MB per interval."""

INTERVAL_S_MAX: Final = 0.25
"""A long interval still leaves three checks in the second that a flood may last."""

INTERVAL_PER_CHECK: Final = 50
"""A check of 1,000 busy connections takes milliseconds under the GIL: at most 2 % of the time goes there."""

LEAVING_CHECKS: Final = 3
"""Looks at an fd after its DISCONNECTED, which libzmq sends microseconds before it closes the fd."""

NOTICES_MAX: Final = 65_536
"""Hints only: a loop that stalls for minutes under a storm of connections may lose the oldest."""

READY_MAX: Final = 4_096
"""Connections per epoll call; the rest is reported by the next one."""

ARRIVALS: Final = 0x80000005
"""EPOLLET | EPOLLOUT | EPOLLIN, by number as only Linux has the names. Arriving bytes mark a connection once, and
the rest cost nothing. Asked for EPOLLIN alone, epoll looks again and keeps silent of bytes that libzmq was quicker
to read; that the connection is writable makes it report the mark all the same."""

SWEEP_US: Final = 5_000_000
"""A connection whose send buffer is full may still slip by: all are measured this often."""

MONITOR_NUMBERS: Final = itertools.count(1)


class Guard:
    """Watches the connections of bound TCP sockets, and cuts those that exceed their allowance.

    One loop calls the public methods; a daemon thread checks every 50 ms while bytes come in, and waits in
    epoll while none do.
    """

    def __init__(
        self,
        memory_bytes_max: int,
        connection_bytes_max: int = SESSIONLESS_BYTES_MAX,
        security_bytes: int = 0,
        on_cut: Callable[[Cut], None] | None = None,
        *,
        tells: bool = True,
        undelivered_bytes_max: int = 0,
    ) -> None:
        """Make a guard; nothing runs before `start`.

        Args:
            memory_bytes_max: resident memory above which the peers with most pending bytes are cut; 0: never.
            connection_bytes_max: wire bytes that a connection may have undelivered, until `allow` is called.
            security_bytes: what security adds to each frame; CURVE_OVERHEAD_BYTES, or 0.
            on_cut: told of each cut, in the guard's thread; must not block.
            tells: keep notices; False for whoever never asks for them.
            undelivered_bytes_max: of all together, for an XPUB; 0: no matter how much.
        """
        self._on_cut = on_cut
        self._memory_bytes_max = memory_bytes_max
        self._connection_bytes_max = connection_bytes_max
        self._undelivered_bytes_max = undelivered_bytes_max
        self._short_bytes = 2 + security_bytes
        self._long_bytes = FRAME_OVERHEAD_BYTES + security_bytes
        self._delivered: dict[int, int] = {}  # fd -> bytes, ever growing; written by the loop only
        self._accounts: dict[int, Account] = {}  # by fd
        self._owners: dict[int, Monitor] = {}  # by fd, of the socket that accepted it; as long as the account
        self._hot: set[int] = set()
        self._holdings: Holdings[int] = Holdings(PEER_PREFIXES_BYTES_MAX, PEER_PREFIXES_BYTES_MAX_OF_ALL)  # by fd
        self._leaving: dict[int, int] = {}  # fd -> looks left
        self._monitors: list[Monitor] = []
        self._gates: list[Gate] = []
        self._notices: deque[Notice] = deque(maxlen=NOTICES_MAX if tells else 0)
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._kernel: Kernel | None = Kernel() if available else None
        self._backlog = Backlog(self._kernel)
        self._poll = select.epoll() if available else None
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if available else -1
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if available else -1
        self._cuts = dict.fromkeys(CutReason, 0)
        self._accepted = self._handshakes = self._disconnected = 0
        self._handshakes_failed = dict.fromkeys(HandshakeFailure, 0)
        self._recent: deque[Cut] = deque(maxlen=RECENT_MAX)
        self._undelivered_peak = self._rss = self._rss_peak = 0
        self._settled_at = 0
        self._swept_at = 0
        self._trim_at: list[int] = []

    # --- the loop's side ---

    def delivered(self, fd: int, byte_count: int, frame_count: int) -> None:
        """Count a message that the loop was handed: the bytes of its frames from the wire, and their number."""
        header = self._short_bytes if byte_count < 256 else self._long_bytes
        counts = self._delivered
        counts[fd] = counts.get(fd, 0) + byte_count + frame_count * header

    def watch(
        self, bound: zmq.Socket[bytes], connection_bytes_max: int | None = None, gate: Gate | None = None
    ) -> None:
        """Guard a socket's connections; before its bind, in the thread that owns it.

        The guard reads the monitor, not the loop: a stalled loop would not tell it of a new flooder. And
        libzmq's I/O thread blocks when a monitor's pipe is full: hence no high-water mark on it.

        Args:
            bound: a ROUTER, XPUB or XSUB. With a finite RCVHWM, bytes left in the kernel don't count.
            connection_bytes_max: for this socket's connections; default: the guard's.
            gate: to close while the loop is behind with connections that came and went.
        """
        address = f"inproc://zbroker-guard-{next(MONITOR_NUMBERS)}"
        pair = bound.context.socket(zmq.PAIR)
        pair.linger = 0
        pair.rcvhwm = 0
        bound.monitor(address, MONITORED)
        pair.connect(address)
        bytes_max = self._connection_bytes_max if connection_bytes_max is None else connection_bytes_max
        with self._lock:
            self._monitors.append(Monitor(bound, pair, bytes_max, bound.rcvhwm > 0, bound.type == zmq.XPUB, gate))
            if gate is not None:
                self._gates.append(gate)
        if self._poll is not None:
            self._poll.register(pair.fileno(), select.EPOLLIN)
            os.eventfd_write(self._alarm, 1)

    def allow(self, fd: int, byte_count: int) -> None:
        """Let a connection have that many wire bytes undelivered from now on; 0: no session any more.

        See `wire_allowance`. Call it before the peer learns of its credit.
        """
        if self._poll is None:
            return
        with self._lock:
            account = self._find(fd)
            if account is not None:
                account.has_session = byte_count > 0
                account.allowance_bytes = byte_count or account.sessionless_bytes_max

    def _find(self, fd: int) -> Account | None:
        """The account of whoever has just sent something."""
        account = self._look(fd)
        if account is None:  # or there was one of the connection that had this number before
            self._hear()  # a HELLO may be faster than the thread; ACCEPTED was sent before it
            account = self._look(fd)
        return account

    def subscribed(self, fd: int, report: bytes) -> None:
        """A report of an XPUB, whose loop bounds nobody: 1 or 0, and a prefix. Who holds too much is cut."""
        if self._poll is None:
            return
        with self._lock:
            account = self._find(fd)
            if account is None or account.is_cut:
                return
            if report[:1] != b"\1":
                self._holdings.drop(fd, report[1:])
                return
            offender = self._holdings.add(fd, report[1:])
            if offender is not None and offender in self._accounts:
                self._cut(self._accounts[offender], CutReason.SUBSCRIPTIONS, time.monotonic_ns() // 1000)

    def cut(self, bound: zmq.Socket[bytes], fd: int) -> None:
        """Cut a connection of this socket that holds more than its loop allows; nothing happens if the fd is another's by now."""
        with self._lock:
            account = self._look(fd) if self._poll is not None else None
            if account is not None and not account.is_cut and self._owners[fd].bound is bound:
                self._cut(account, CutReason.SUBSCRIPTIONS, time.monotonic_ns() // 1000)

    def notices(self) -> list[Notice]:
        """Return what happened to connections since the last call, oldest first."""
        if self._poll is None:
            self._hear()
        else:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._bell)
        return [self._notices.popleft() for _ in range(len(self._notices))]

    def fileno(self) -> int:
        """Return an fd that is readable while there are notices; -1 where `available` is False: ask each turn."""
        return self._bell

    def report(self) -> GuardReport:
        with self._lock:
            return GuardReport(
                available=available,
                is_running=self._thread is not None and self._thread.is_alive(),
                connections=len(self._accounts),
                accepted=self._accepted,
                handshakes=self._handshakes,
                handshakes_failed=dict(self._handshakes_failed),
                disconnected=self._disconnected,
                cuts=dict(self._cuts),
                recent=tuple(self._recent),
                undelivered_bytes_peak=self._undelivered_peak,
                rss_bytes=self._rss,
                rss_bytes_peak=self._rss_peak,
                closings=sum(gate.closings for gate in self._gates),
                is_closed=any(gate.is_closed for gate in self._gates),
            )

    def start(self) -> None:
        if self._poll is not None and self._thread is None:
            assert self._kernel is not None
            self._poll.register(self._alarm, select.EPOLLIN)
            self._rss = self._rss_peak = self._kernel.rss_bytes()  # the first report may be asked for at once
            self._thread = threading.Thread(target=self._run, name="zbroker-guard", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop; in the thread that owns the watched sockets, before the context is destroyed. Idempotent."""
        if self._stop.is_set():
            return
        self._stop.set()
        for monitor in self._monitors:
            if not monitor.bound.closed:  # first: libzmq's I/O thread blocks when nobody is at the other end
                monitor.bound.disable_monitor()
        if self._thread is not None:
            os.eventfd_write(self._alarm, 1)
            self._thread.join()
        for monitor in self._monitors:
            monitor.pair.close()
        if self._poll is not None and self._kernel is not None:
            self._poll.close()
            self._kernel.close()
            os.close(self._bell)
            os.close(self._alarm)

    # --- the thread's side ---

    def _run(self) -> None:
        assert self._poll is not None
        while not self._stop.is_set():
            ready = self._poll.poll(self._patience_s(), READY_MAX)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._alarm)
            started = time.perf_counter()
            self.check([fd for fd, _ in ready], time.monotonic_ns() // 1000)
            spent_s = time.perf_counter() - started
            self._stop.wait(min(INTERVAL_S_MAX, max(INTERVAL_S, INTERVAL_PER_CHECK * spent_s)))

    def _patience_s(self) -> float | None:
        """How long to wait for bytes: not at all with somebody to watch, for good with nobody connected."""
        if self._hot or self._leaving or any(gate.is_behind for gate in self._gates):
            return 0
        is_pressed = 0 < self._memory_bytes_max < self._rss
        if is_pressed or self._trim_at:
            return INTERVAL_S_MAX
        return SWEEP_US / 1e6 if self._accounts else None

    def check(self, ready: list[int], now: int) -> None:
        """Measure the connections in `ready` and those near their allowance, then cut; `now` in us."""
        assert self._kernel is not None
        with self._lock:
            self._see_off()
            self._hear()
            for gate in self._gates:
                gate.look(now)
            looked_at = self._hot.union(ready)
            if now >= self._swept_at + SWEEP_US:
                self._swept_at = now
                looked_at.update(self._accounts)
            self._hot.clear()
            for fd in looked_at:
                account = self._accounts.get(fd)
                if account is not None and not account.is_cut:
                    self._measure(account, now)
                    if account.exceeds(0):
                        reason = CutReason.BEYOND_CREDIT if account.has_session else CutReason.BEFORE_HELLO
                        self._cut(account, reason, now)
                    if account.is_hot:
                        self._hot.add(fd)
            self._watch_crowd(now)
            self._watch_memory(now)
        if self._trim_at and now >= self._trim_at[0]:
            self._trim_at.pop(0)
            self._kernel.trim()  # outside the lock: it may take long after a large flood

    def _see_off(self) -> None:
        for fd, looks in list(self._leaving.items()):
            if self._look(fd) is None or looks <= 1:
                del self._leaving[fd]
            else:
                self._leaving[fd] = looks - 1

    def _hear(self) -> None:
        """Read the monitors. The cookie decides what is true of an fd; an event is only the reason to look."""
        for monitor in self._monitors:
            while True:
                try:
                    event, endpoint = monitor.pair.recv_multipart(zmq.DONTWAIT)
                except zmq.Again:
                    break
                kind, fd = struct.unpack("=HI", event)
                self._tally(kind)
                if monitor.gate is not None:
                    monitor.gate.hear(kind, fd)
                if kind & CONNECTIONS == 0:
                    continue
                self._notices.append(Notice(fd, kind == zmq.EVENT_ACCEPTED, monitor.bound))
                if self._poll is not None:
                    self._welcome(monitor, kind, fd, endpoint)
                    os.eventfd_write(self._bell, 1)  # after the append: else the loop finds nothing, and sleeps

    def _tally(self, kind: int) -> None:
        """Count an event; MONITOR_STOPPED, which comes unasked, is none."""
        if kind == zmq.EVENT_ACCEPTED:
            self._accepted += 1
        elif kind == zmq.EVENT_DISCONNECTED:
            self._disconnected += 1
        elif kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._handshakes += 1
        elif kind in HANDSHAKE_FAILURES:
            self._handshakes_failed[HANDSHAKE_FAILURES[kind]] += 1

    def _welcome(self, monitor: Monitor, kind: int, fd: int, endpoint: bytes) -> None:
        if kind == zmq.EVENT_ACCEPTED:
            self._look(fd, monitor, port_of(endpoint))
        else:
            self._leaving[fd] = LEAVING_CHECKS
            account = self._accounts.get(fd)
            if account is not None and account.undelivered > TRIM_BYTES_MIN:  # it left a message that never ended
                self._trim_soon(time.monotonic_ns() // 1000)

    def _look(self, fd: int, monitor: Monitor | None = None, port: int | None = None) -> Account | None:
        """Return the account of the connection that has this fd now; open it when it was announced.

        A port that isn't the announced one says that the connection has gone, and the number was given to
        something that nobody asked us to guard.
        """
        account = self._accounts.get(fd)
        sock = borrow(fd)
        if sock is None:
            self._forget(fd)
            return None
        with sock:
            try:
                cookie = cookie_of(sock)
                if account is not None and account.cookie == cookie:
                    return account
                self._forget(fd)
                if monitor is None or sock.family == socket.AF_UNIX or sock.getsockname()[1] != port:
                    return None
                host, remote_port = sock.getpeername()[:2]
            except OSError:  # not connected any more
                return None
            return self._open(fd, cookie, f"{host}:{remote_port}", monitor)

    def _open(self, fd: int, cookie: int, remote: str, monitor: Monitor) -> Account | None:
        assert self._kernel is not None
        assert self._poll is not None
        delivered = self._delivered.get(fd, 0)
        received = self._kernel.received_bytes(fd)
        account = Account(
            fd=fd,
            cookie=cookie,
            remote=remote,
            allowance_bytes=monitor.connection_bytes_max,
            sessionless_bytes_max=monitor.connection_bytes_max,
            received=received,
            delivered=delivered,
            settled_at=time.monotonic_ns() // 1000,
            # No more than is certain: all of `delivered` may be this connection's, or all its predecessor's.
            undelivered=max(0, received - delivered),
            has_backpressure=monitor.has_backpressure,
        )
        try:
            self._poll.register(fd, ARRIVALS)  # the entry goes with libzmq's fd
        except FileExistsError:
            pass
        except OSError:
            return None
        self._accounts[fd] = account
        self._owners[fd] = monitor
        self._hot.add(fd)  # it may have flooded before we heard of it
        return account

    def _forget(self, fd: int) -> None:
        self._accounts.pop(fd, None)
        self._owners.pop(fd, None)
        self._hot.discard(fd)
        self._holdings.forget(fd)

    def _measure(self, account: Account, now: int) -> None:
        """Settle an account. The loop can't run between the two totals: nothing here lets go of the GIL."""
        assert self._kernel is not None
        delivered = self._delivered.get(account.fd, 0)
        received = self._kernel.received_bytes(account.fd)
        if received >= account.received:  # else the fd is another's; its monitor event is on the way
            account.settle(received, delivered, now)
            self._undelivered_peak = max(self._undelivered_peak, account.undelivered)

    def _cut(self, account: Account, reason: CutReason, now: int) -> bool:
        """Reset a connection, unless the fd is another's by now or a second look finds it in order."""
        assert self._kernel is not None
        sock = borrow(account.fd)
        if sock is None:
            self._forget(account.fd)
            return False
        with sock:
            try:
                if cookie_of(sock) != account.cookie:
                    self._forget(account.fd)
                    return False
                kernel_bytes = queued_bytes(sock)
                self._measure(account, now)
                if reason in FLOODS and not account.exceeds(kernel_bytes):
                    return False
                self._kernel.disconnect(sock)
            except OSError:  # the peer was faster
                self._forget(account.fd)
                return False
        account.is_cut = True
        self._cuts[reason] += 1
        cut = Cut(reason, account.remote, account.undelivered, account.allowance_bytes, now)
        self._recent.append(cut)
        if self._on_cut is not None:
            self._on_cut(cut)
        self._trim_soon(now)
        return True

    def _trim_soon(self, now: int) -> None:
        if len(self._trim_at) <= 1:  # else one is due: a trim of a large heap takes 0.1 s, and cuts come in hundreds
            self._trim_at = [now + after for after in TRIM_AFTER_US]

    def _deaf(self, now: int) -> list[Account] | None:
        """Peers of our XPUB for whom something waits, and who have taken nothing of it for a while; None: not known yet."""
        owners = self._owners
        listening = [one for fd, one in self._accounts.items() if owners[fd].has_readers and not one.is_cut]
        return self._backlog.deaf(listening, now)

    def _watch_crowd(self, now: int) -> None:
        """Each within its allowance, a hundred peers fill the memory all the same with subscriptions that no loop has seen."""
        bytes_max = self._undelivered_bytes_max
        if bytes_max and sum(account.undelivered for account in self._accounts.values()) > bytes_max:
            for account in self._accounts.values():
                self._measure(account, now)
            for account in crowd_cuts(list(self._accounts.values()), bytes_max):
                self._cut(account, CutReason.SUBSCRIPTIONS, now)

    def _watch_memory(self, now: int) -> None:
        assert self._kernel is not None
        self._rss = self._kernel.rss_bytes()
        self._rss_peak = max(self._rss_peak, self._rss)
        excess = self._rss - self._memory_bytes_max
        if self._memory_bytes_max <= 0 or excess <= 0:
            self._backlog.forget()
            return
        if now < self._settled_at:
            return
        chosen = self._deaf(now)
        if chosen is None:  # known in a moment; till then nobody is cut who may be innocent
            return
        for account in self._accounts.values():
            self._measure(account, now)
        chosen = chosen or memory_cuts(list(self._accounts.values()), excess)
        if sum(self._cut(account, CutReason.MEMORY, now) for account in chosen):
            self._settled_at = now + SETTLE_US
