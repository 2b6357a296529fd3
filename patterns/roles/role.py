"""What all roles share: what they need of a driver, addresses, arguments, and the end.

A role is written once. What waits is a generator of Steps, which the shell runs: patterns.sync blocks, patterns.aio awaits.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, Generic, Protocol, TypeVar

from patterns.io import virtual
from patterns.io.clock import clock
from patterns.io.links import DrivenEngine, SocketKind
from patterns.io.waiting import Steps
from patterns.wire.address import Address, parse_addresses
from patterns.wire.errors import BadArgument, NotInThisDeployment
from patterns.wire.messages import Codec

CLOSE_TIMEOUT_S: Final = 5.0
LINGER_MS: Final = 1_000  # what libzmq still holds when a socket of ours closes has so long to leave
jitter = random.random

_T = TypeVar("_T")


class RoleDriver(Protocol):
    """What roles need of a driver; how it waits is between it and its shell."""

    owner: str
    kicked: bool
    forked: bool
    is_closed: bool

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Whoever touches the engine holds it."""

    @property
    def bound(self) -> str:
        """The endpoint, if it binds; a port 0 is filled in."""

    @property
    def cuts(self) -> Counter[str]:
        """Connections to a bound socket that the guard has cut, by reason."""

    def start(self, last: Callable[[float], Steps[None]]) -> None:
        """Make the sockets and begin to connect; `last` are the steps before a goodbye at exit. Raises BadAddress, Unavailable."""

    def check(self) -> None:
        """Raises Forked, Closed, or what the session was refused for."""

    def is_over(self) -> bool:
        """Whether close() was called; raises the rest of what check() raises."""

    def run(self, call: Callable[[int], None] | None = None) -> None:
        """Send what call(now) and others have posted; never waits for the other end."""

    def burst(self) -> None:
        """Send a full batch of posted messages from here."""

    def kick(self) -> None:
        """Something was posted: whoever drives shall take it. Once per turn: see `kicked`."""

    def defer(self, call: Callable[[], None]) -> None:
        """Call user code soon, without the lock; under the lock."""

    def call_theirs(self, call: Callable[[], _T]) -> _T:
        """Call the program's code in the midst of a call of ours, without the lock: signal handlers run there as ever."""

    def abandon(self, call: Callable[[], None]) -> None:
        """Call it soon, without the lock; for finalizers, which may run in any thread and at any point of it."""


D = TypeVar("D", bound=RoleDriver)
_D_co = TypeVar("_D_co", bound=RoleDriver, covariant=True)


class MakeDriver(Protocol[_D_co]):
    """A driver's class."""

    def __call__(
        self,
        engine: DrivenEngine,
        kind: SocketKind,
        on_events: Callable[[list[Any]], None],
        *,
        binds: bool = False,
        before_turn: Callable[[int], None] | None = None,
        in_background: Callable[[], bool] = ...,
        linger_ms: int = 0,
    ) -> _D_co: ...


class Role(Generic[D]):
    """Around a driver; see the roles."""

    _driver: D

    def _start(self) -> None:
        """Make the sockets and begin to connect; errors name the class of who drives. Raises BadAddress, Unavailable."""
        self._driver.owner = type(self).__name__
        self._driver.start(self._last)

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._driver.is_closed

    def _failed(self) -> None:
        """The caller leaves the `with` by an exception of its own; close() follows."""

    def _last(self, timeout_s: float) -> Steps[None]:
        """What close() waits for before it says goodbye; returns in time."""
        return
        yield  # a generator without a step


def resolve(address: str | None) -> tuple[Address, ...]:
    """The addresses of an argument; None or "": those of ZBROKER_URL. Raises BadAddress, and Unavailable for a memory:// that nobody has."""
    addresses = parse_addresses(address or os.environ.get("ZBROKER_URL"))
    virtual.check(addresses)
    return addresses


def codec_of(codec: str) -> Codec:
    """Raises BadArgument."""
    try:
        return Codec(codec)
    except ValueError as error:
        raise BadArgument(f"codec {codec!r}: one of {', '.join(Codec)}") from error


def refuse_security(security: object) -> None:
    """Raises NotInThisDeployment: keys that are not used must not look as if they were."""
    if security is not None:
        raise NotInThisDeployment(
            "security=: encryption is not built in this version; leave it out, or keep to loopback"
        )


def new_nonce() -> bytes:
    """16 random bytes that name a session over reconnects."""
    return os.urandom(16)


def binds(address: Address, *, default: bool) -> bool:
    """Whether a role binds this address."""
    return default if address.binds is None else address.binds


def deadline_of(timeout_s: float | None) -> int | None:
    """A deadline on the engines' clock. Raises BadArgument for what is no time."""
    if timeout_s is None:
        return None
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not timeout_s >= 0:
        raise BadArgument(f"timeout_s={timeout_s!r}: a number of seconds, 0 or more, or None for no limit")
    return clock() + int(min(timeout_s, 1e9) * 1e6)


def check_limit(timeout_s: float) -> None:
    """Raises BadArgument for what close() cannot wait for: it always has a limit."""
    if timeout_s is None:
        raise BadArgument("timeout_s=None: close() needs a number of seconds, 0 or more")
    deadline_of(timeout_s)


def raise_if_never_there(engine: DrivenEngine) -> None:
    """Raise Unavailable if nobody was ever there: an empty result would look as if there was nothing to do."""
    if not engine.was_ready and not engine.closed:
        raise engine.unavailable()


def raise_error(engine: DrivenEngine) -> None:
    """Raise what the session was refused for, if it was."""
    if engine.error is not None:
        raise engine.error
