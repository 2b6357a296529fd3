"""What the guard knows of a connection, and whom it chooses: pure arithmetic over two totals.

No system call, socket or clock lives here: `guard_kernel.py` and `guard.py` have those.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

SLACK_BYTES: Final = 64 * KIB
"""Greeting, READY, a HELLO, a few heartbeats and SUBSCRIBE commands: under 2 KiB in practice."""

SESSIONLESS_BYTES_MAX: Final = 64 * KIB + SLACK_BYTES
"""What a peer may have pending before a session gives it credit: the longest HELLO. Nothing else of it is acted on,
and empty frames, 2 bytes on the wire and 64 in a queue, must not get 40 MiB a connection for their MiB."""

FRAME_OVERHEAD_BYTES: Final = 9
"""ZMTP's long frame header; a short one has 2. To count too much as delivered only makes the guard lenient."""

CURVE_OVERHEAD_BYTES: Final = 33
"""RFC 26, on every frame: command name 8, nonce 8, box 16, flags 1."""

FORGIVEN_BYTES_S: Final = 64
"""Heartbeats are received and never delivered: PING 9 and PONG 7 bytes every 2 s are 8 B/s, for weeks. Eight
times that, and a patient attacker hides at most 5.5 MB a day on one connection."""

MEMORY_CUT_BYTES_MIN: Final = 64 * KIB
"""To cut a peer with less pending frees nothing that matters, and would hit one that is just saying HELLO."""

AMPLIFICATION_MAX: Final = 32
"""An empty frame is 2 bytes on the wire and 64 (msg_t) in a queue. More memory than that isn't the peers'."""


SETTLE_US: Final = 250_000
"""libzmq frees an offender's queue in its own time after the cut; before that, resident memory proves nothing."""

TRIM_AFTER_US: Final = tuple(SETTLE_US << doubling for doubling in range(7))
"""When to give memory back after a cut: 0.25 s, and up to 16 s, when a stalled loop has read what was left."""

TRIM_BYTES_MIN: Final = 1024 * 1024
"""Undelivered bytes of a peer that goes by itself, for which that is worth while: up to 32 MiB of memory."""


RECENT_MAX: Final = 32
"""Cuts that `zbroker status` shows; a flood of 1,000 must not fill the screen."""


class CutReason(Enum):
    """Why a connection was cut. A message that never ends and one message after another are the same to who counts bytes."""

    BEFORE_HELLO = "before_hello"  # more undelivered than a peer without a session may have
    BEYOND_CREDIT = "beyond_credit"  # more than its session's credit
    MEMORY = "memory"  # the broker was over its budget, and this one had most pending
    SUBSCRIPTIONS = "subscriptions"  # more of them than a subscriber may hold


FLOODS: Final = frozenset((CutReason.BEFORE_HELLO, CutReason.BEYOND_CREDIT))
"""Reasons that a second look at the undelivered bytes may find gone."""


class HandshakeFailure(Enum):
    """What libzmq's monitor says of a handshake that came to nothing."""

    PROTOCOL = "protocol"  # bytes that are no ZMTP, or of another security mechanism
    BROKEN_OFF = "broken_off"  # closed, or not done within HANDSHAKE_MS
    AUTH = "auth"


@dataclass(frozen=True, slots=True)
class Cut:
    """A connection that the guard has cut; `undelivered_bytes` are wire bytes, in libzmq or in the kernel."""

    reason: CutReason
    remote: str
    undelivered_bytes: int
    allowance_bytes: int
    cut_at: int  # microseconds on the monotonic clock


@dataclass(frozen=True, slots=True)
class GuardReport:
    """For `zbroker status`. Sizes in bytes."""

    available: bool
    is_running: bool  # False after `start`: the thread has died, nobody is guarded
    connections: int
    accepted: int
    handshakes: int  # that succeeded
    handshakes_failed: dict[HandshakeFailure, int]
    disconnected: int
    cuts: dict[CutReason, int]
    recent: tuple[Cut, ...]
    undelivered_bytes_peak: int
    rss_bytes: int
    rss_bytes_peak: int
    closings: int  # how often a gate has closed
    is_closed: bool  # one is


def wire_allowance(
    credit_bytes: int, credit_messages: int, message_bytes_max: int, frames_max: int = 8, security_bytes: int = 0
) -> int:
    """Return the most wire bytes that a peer with this credit may have pending.

    Args:
        credit_bytes: the whole window, in bytes of bodies.
        credit_messages: the whole window, in messages.
        message_bytes_max: one message more may be under way: a partial one, or those that need no credit.
        frames_max: frames of one message.
        security_bytes: what security adds to each frame; CURVE_OVERHEAD_BYTES, or 0.
    """
    framing = (credit_messages + 1) * frames_max * (FRAME_OVERHEAD_BYTES + security_bytes)
    return credit_bytes + message_bytes_max + framing + SLACK_BYTES


@dataclass(slots=True)
class Account:
    """What one connection has received and not delivered: never more than the truth plus its heartbeats."""

    fd: int
    cookie: int
    remote: str
    allowance_bytes: int
    sessionless_bytes_max: int
    received: int
    delivered: int
    settled_at: int  # microseconds
    undelivered: int = 0
    has_session: bool = False
    has_backpressure: bool = False  # libzmq stops reading at a high-water mark: bytes left in the kernel are in order
    is_cut: bool = False

    def settle(self, received: int, delivered: int, now: int) -> None:
        """Bring `undelivered` up to date from two totals.

        Never below 0, before and after: else an idle month, or messages of the dead connection that had this
        fd before, would be saved up as an allowance for a flood.
        """
        forgiven = (now - self.settled_at) * FORGIVEN_BYTES_S // 1_000_000
        if forgiven:  # else keep the instant: many short intervals would forgive nothing
            self.settled_at = now
        pending = max(0, self.undelivered - forgiven)
        self.undelivered = max(0, pending + received - self.received - (delivered - self.delivered))
        self.received = received
        self.delivered = delivered

    def exceeds(self, kernel_bytes: int) -> bool:
        """True when it must be cut, `kernel_bytes` of it being still in the kernel's receive queue."""
        held = self.undelivered - kernel_bytes if self.has_backpressure else self.undelivered
        return held > self.allowance_bytes

    @property
    def is_hot(self) -> bool:
        """True when it deserves a look at each check, whether or not bytes came in."""
        return not self.is_cut and self.undelivered * 2 > self.allowance_bytes


def memory_cuts(accounts: list[Account], excess_bytes: int) -> list[Account]:
    """Choose whom to cut when resident memory is `excess_bytes` over its budget.

    Most undelivered bytes first, and peers without a session before those that may be keeping to their
    credit. Empty when the peers' bytes can't explain the excess: then the memory is the broker's own.
    """
    worth = [a for a in accounts if not a.is_cut and a.undelivered >= MEMORY_CUT_BYTES_MIN]
    if sum(a.undelivered for a in worth) * AMPLIFICATION_MAX < excess_bytes:
        return []
    chosen: list[Account] = []
    freed = 0
    for account in sorted(worth, key=lambda a: (a.has_session, -a.undelivered)):
        if freed >= excess_bytes:
            break
        chosen.append(account)
        freed += account.undelivered
    return chosen


def crowd_cuts(accounts: list[Account], bytes_max: int) -> list[Account]:
    """Choose whom to cut so that all together have no more than `bytes_max` undelivered: those with most."""
    there = sorted((a for a in accounts if not a.is_cut), key=lambda a: -a.undelivered)
    undelivered = sum(a.undelivered for a in there)
    chosen: list[Account] = []
    for account in there:
        if undelivered <= bytes_max:
            break
        chosen.append(account)
        undelivered -= account.undelivered
    return chosen
