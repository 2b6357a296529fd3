"""The one ZeroMQ context of this process, and what it owes to those who use it at a fork and at exit."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import Final, Protocol

import zmq


class User(Protocol):
    """A driver: something with sockets."""

    forked: bool
    kicked: bool

    def at_exit(self) -> None:
        """Close what the program left open; never waits long."""


_users: Final[weakref.WeakSet[User]] = weakref.WeakSet()
_context: zmq.Context[zmq.Socket[bytes]] | None = None
_lock = threading.Lock()


def shared_context() -> zmq.Context[zmq.Socket[bytes]]:
    """The context: inproc:// needs both ends in the same one, and one I/O thread serves all."""
    global _context
    with _lock:
        if _context is None or _context.closed:
            _context = zmq.Context()
            atexit.register(_let_leave, _context)
        return _context


def enter(user: User) -> None:
    """From now on this user is told of forks and of the exit."""
    _users.add(user)


def leave(user: User) -> None:
    """It has closed its sockets."""
    _users.discard(user)


def _let_leave(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """At exit: close what the program left open, and give what libzmq still holds its linger time to leave."""
    for user in list(_users):
        user.at_exit()
    if context is _context and not _users:
        context.term()


def _after_fork_in_child() -> None:
    """Sockets and context are the parent's; the child makes its own."""
    for user in list(_users):
        user.forked = True
        user.kicked = False  # else what is posted asks nobody, and nobody says that it goes nowhere
    global _context, _lock
    _context = None
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
