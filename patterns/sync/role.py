"""What the roles of the sync shell share: addresses, arguments, the driver, and the end."""

from __future__ import annotations

import os
import random
from types import TracebackType
from typing import Final, Self

from patterns.io.clock import clock
from patterns.io.driver import Driver
from patterns.io.links import DrivenEngine
from patterns.wire.address import Address, parse_addresses
from patterns.wire.errors import BadArgument, NotInThisDeployment
from patterns.wire.messages import Codec

CLOSE_TIMEOUT_S: Final = 5.0
LINGER_MS: Final = 1_000  # what libzmq still holds when a socket of ours closes has so long to leave
jitter = random.random


def resolve(address: str | None) -> tuple[Address, ...]:
    """The addresses of an argument; None or "": those of ZBROKER_URL. Raises BadAddress."""
    return parse_addresses(address or os.environ.get("ZBROKER_URL"))


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


class Role:
    """A context manager around a driver; see the roles."""

    _driver: Driver

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send what was posted, say goodbye and let go of the sockets. Any thread may call it, more than once."""
        self._driver.close(timeout_s)

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._driver.is_closed


def deadline_of(timeout_s: float | None) -> int | None:
    """A deadline on the engines' clock. Raises BadArgument for what is no time."""
    if timeout_s is None:
        return None
    if not timeout_s >= 0:
        raise BadArgument(f"timeout_s={timeout_s!r}: a number of seconds, 0 or more, or None for no limit")
    return clock() + int(min(timeout_s, 1e9) * 1e6)


def raise_error(engine: DrivenEngine) -> None:
    """Raise what the session was refused for, if it was."""
    if engine.error is not None:
        raise engine.error
