"""What an engine is: frames and `now` in; frames, events and effects out. No socket, file, clock, thread or randomness."""

from __future__ import annotations

from enum import Enum
from typing import Protocol, TypeVar

import msgspec

from patterns.wire.frames import Frames

Link = int  # a socket of the shell, by a number that the engine gave
PeerId = bytes  # a routing id on a ROUTER; empty on sockets with one other end

Event = TypeVar("Event")


class Open(msgspec.Struct, frozen=True, gc=False):
    """Make a socket for this link and connect or bind it."""

    link: Link
    address: str


class Send(msgspec.Struct, gc=False):
    """Send now; nothing waits for a socket, credit has been asked already."""

    link: Link
    peer: PeerId
    frames: Frames


class Listen(msgspec.Struct, frozen=True, gc=False):
    """Subscribe a SUB socket to a prefix, or no longer."""

    link: Link
    prefix: bytes
    on: bool = True


class Close(msgspec.Struct, frozen=True, gc=False):
    """Close the link's socket; on a ROUTER with a peer, forget that peer."""

    link: Link
    peer: PeerId = b""


Effect = Open | Send | Listen | Close


class Unreachable(Enum):
    """Why no connection comes about, as far as a shell can tell; it goes on trying."""

    NOBODY = "nobody listens at {place}"
    NO_NAME = "the name in {place} does not resolve"
    STRANGER = (
        "whoever listens at {place} hangs up in the middle of the ZMTP handshake, so it is another kind of socket"
    )


class Engine(Protocol[Event]):
    """The one abstraction. `now` is integer microseconds on a monotonic clock; it never goes back."""

    def connected(self, link: Link, now: int) -> None:
        """The link's connection stands (ZMTP handshake done)."""

    def disconnected(self, link: Link, now: int) -> None:
        """The link's connection is gone."""

    def receive(self, link: Link, peer: PeerId, frames: Frames, now: int) -> None:
        """One message from a peer. Never raises, whatever the peer sent: it counts and drops."""

    def events(self) -> list[Event]:
        """What the user or the shell must hear of, oldest first; each once."""

    def effects(self) -> list[Effect]:
        """What the shell must do, oldest first; each once."""

    def next_timeout(self) -> int | None:
        """When handle_timeout() is due next."""

    def handle_timeout(self, now: int) -> None:
        """Do what is due by now."""
