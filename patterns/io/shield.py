"""Python's signal handlers wait while the main thread is in the middle of something that an exception must not cut in two.

A handler, Ctrl-C's among them, runs in the main thread between any two bytecodes, and may raise. While the shield is up,
stand-ins take the handlers' places: they note what came. Where the thread sleeps the shield is open: handlers run and may raise.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

# without the enums that `signal` makes of each answer; they cost a microsecond each
_signal: Final[Any] = importlib.import_module("_signal")
_get_handler: Final[Callable[[int], Any]] = _signal.getsignal
_set_handler: Final[Callable[[int, Any], Any]] = _signal.signal
_get_ident: Final = threading.get_ident

_USUAL: Final = ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD")
_WATCHED: Final = tuple(int(getattr(signal, name)) for name in _USUAL if hasattr(signal, name))
_ALL: Final = tuple(sorted(int(number) for number in signal.valid_signals()))  # 3 us to look at; see look_around()

NOT_OURS: Final = 0
_RAISED: Final = 1
_CLOSED_AGAIN: Final = 2


class _StandIn:
    """In the place of a handler. Left behind (the next signal's handler raised while they were put back), it steps aside."""

    __slots__ = ("_number", "_shield", "theirs")

    def __init__(self, shield: Shield, number: int, theirs: Callable[..., Any]) -> None:
        self._shield = shield
        self._number = number
        self.theirs = theirs

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._shield.came(self, frame)

    def put_back(self) -> None:
        """Their own handler again, unless they have set another meanwhile."""
        now = _set_handler(self._number, self.theirs)
        if now is not self:
            _set_handler(self._number, now)

    def call(self, frame: FrameType | None) -> None:
        self.theirs(self._number, frame)


class Shield:
    """One for the process, since handlers are.

    Attributes:
        is_open: handlers may run and raise now; whoever opened it sets this to False again.
        has_news: something came and waits.
    """

    __slots__ = ("_came", "_handlers", "_is_up", "_main", "_stand_ins", "_watched", "is_open")

    def __init__(self) -> None:
        self._watched = _WATCHED
        self._handlers: list[Any] = []
        self._stand_ins: list[tuple[int, _StandIn]] = []
        self._came: dict[_StandIn, None] = {}
        self._is_up = False
        self.is_open = False
        self._main = threading.main_thread().ident

    @property
    def has_news(self) -> bool:
        return bool(self._came)

    def raise_(self) -> int:
        """From now on handlers wait.

        Returns:
            What to give to lower(); NOT_OURS: nothing to lower: another thread than the main one, or it is up already.
        """
        if _get_ident() != self._main:
            return NOT_OURS
        if self._is_up:
            if not self.is_open:
                return NOT_OURS
            self.is_open = False  # a handler, or a callback, calls one of our functions
            return _CLOSED_AGAIN
        handlers = list(map(_get_handler, self._watched))
        if handlers != self._handlers:
            self._learn(handlers)
        for number, stand_in in self._stand_ins:
            _set_handler(number, stand_in)
        self._is_up = True
        return _RAISED

    def look_around(self) -> None:
        """Watch what else has a handler by now; each call of raise_() looks only at signals that programs usually handle."""
        if not self._is_up and _get_ident() == self._main:
            self._watched = tuple(one for one in _ALL if one in _WATCHED or callable(_get_handler(one)))

    def _learn(self, handlers: list[Any]) -> None:
        found: list[tuple[int, _StandIn]] = []
        for number, theirs in zip(self._watched, handlers, strict=True):
            if callable(theirs):
                found.append((number, theirs if isinstance(theirs, _StandIn) else _StandIn(self, number, theirs)))
        self._stand_ins = found
        self._handlers = handlers

    def lower(self, raised: int) -> None:
        """Handlers run again, now those that have waited; what they raise is raised here."""
        if raised == _CLOSED_AGAIN:
            self.is_open = True
        else:
            self.is_open = False
            self._is_up = False  # first: what raises in the midst of this leaves stand-ins that step aside
            for _, stand_in in self._stand_ins:
                stand_in.put_back()
        if self._came:
            self._catch_up()

    def open(self) -> bool:
        """Handlers may run and raise from here on: those that have waited at once.

        Returns:
            Whether it is ours: then the caller sets `is_open` to False. By a call, a handler could come in between.
        """
        if not self._is_up or _get_ident() != self._main:
            return False
        self.is_open = True
        if self._came:
            self._catch_up()
        return True

    def came(self, stand_in: _StandIn, frame: FrameType | None) -> None:
        """A signal: it waits, or its handler is called."""
        if self._is_up and not self.is_open:
            self._came[stand_in] = None
        else:
            if not self._is_up:
                stand_in.put_back()
            self._call(stand_in, frame)

    def _catch_up(self) -> None:
        while self._came:
            stand_in = next(iter(self._came))
            del self._came[stand_in]
            self._call(stand_in, sys._getframe())

    def _call(self, stand_in: _StandIn, frame: FrameType | None) -> None:
        try:
            stand_in.call(frame)
        except BaseException:
            self.is_open = False  # at once: a second one must not cut short what cleans up after the first
            raise

    def after_fork(self) -> None:
        """In the child, whose only thread is its main one; it may have been forked by a handler or a callback."""
        self._main = threading.get_ident()
        self._is_up = self.is_open = False
        self._came.clear()


shield: Final = Shield()
os.register_at_fork(after_in_child=shield.after_fork)
