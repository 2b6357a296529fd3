"""The one ZeroMQ context of this process, and what it owes to those who use it at a fork and at exit."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from typing import Final, Protocol

import zmq

from patterns.io.clock import clock
from patterns.wire.words import described


class User(Protocol):
    """A driver: something with sockets."""

    forked: bool
    kicked: bool

    def at_exit(self, until: int) -> None:
        """Close what the program left open; what waits at all ends when the clock says so."""

    def look_at_clock(self) -> int | None:
        """Time was skipped: do what is due, wake whoever waits with a deadline. Returns when the engine is due next; None: never."""


class Iteration(Protocol):
    """What has taken from a driver what its caller was not given yet."""

    def let_go(self) -> None:
        """Give nothing more of it."""


_SOCKETS_MAX: Final = 16_384  # three a role; libzmq's 1,023 are 340 roles, and so many more cost 24 KiB
_EXIT_US: Final = (
    2_000_000  # for all roles together: a hundred that wait one after the other for a dead broker would take minutes
)
_EXIT_STEP_S: Final = 1.0
_log = logging.getLogger("zbroker")
_users: Final[weakref.WeakSet[User]] = weakref.WeakSet()
_iterations: Final[weakref.WeakSet[Iteration]] = weakref.WeakSet()
_context: zmq.Context[zmq.Socket[bytes]] | None = None
_lock = threading.Lock()


def shared_context() -> zmq.Context[zmq.Socket[bytes]]:
    """The context: inproc:// needs both ends in the same one, and one I/O thread serves all."""
    global _context
    with _lock:
        if _context is None or _context.closed:
            _context = zmq.Context()
            _context.set(zmq.MAX_SOCKETS, _SOCKETS_MAX)
            atexit.register(_let_leave, _context)
        return _context


def enter(user: User) -> None:
    """From now on this user is told of forks and of the exit."""
    _users.add(user)


def watch(iteration: Iteration) -> None:
    """What it holds is this process's: in a child of a fork it lets go, so that the next step asks the driver."""
    _iterations.add(iteration)


def leave(user: User) -> None:
    """It has closed its sockets."""
    _users.discard(user)


def look_at_clock() -> int | None:
    """Have every user see that time was skipped; from any thread. Returns when the first of their engines is due next."""
    return min((due for user in list(_users) if (due := user.look_at_clock()) is not None), default=None)


def left_s(until: int) -> float:
    """So long may a step of at_exit() take; 0 when the others have used up the time: then what is there already is taken in."""
    return min(_EXIT_STEP_S, max(0, until - clock()) / 1e6)


def _let_leave(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """At exit: close what the program left open, and give what libzmq still holds its linger time to leave."""
    until = clock() + _EXIT_US
    for user in list(_users):
        try:
            user.at_exit(until)
        except (Exception, SystemExit) as error:  # noqa: BLE001  of a callback, too: the others are to be closed all the same
            _log.error("what was left open could not be closed at exit: %s", described(error))
    if context is _context and not _users:
        context.term()


def _after_fork_in_child() -> None:
    """Sockets and context are the parent's; the child makes its own."""
    for user in list(_users):
        user.forked = True
        user.kicked = False  # else what is posted asks nobody, and nobody says that it goes nowhere
    for iteration in list(_iterations):
        iteration.let_go()
    global _context, _lock
    _context = None
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
