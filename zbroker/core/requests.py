"""What the broker knows of a request, of the ends it runs between, and of a service's readiness. Nothing is sent here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import msgspec

from patterns.wire.frames import Form
from patterns.wire.messages import Request
from patterns.wire.server import Session
from zbroker.core.flow import Flow
from zbroker.core.schedule import Schedule

ANSWERS_OWED_MAX: Final = 4_096  # 2 MiB of what we remember of them (SPEC.md 11)
_ENTRIES_MIN: Final = 16  # below, what is void in a heap is not worth looking for


class Pending(msgspec.Struct, eq=False, gc=True):
    """A request that has had no outcome yet, or whose replier still holds credit for it.

    Attributes:
        requester: None once nobody waits for the outcome.
        asked_bytes: of payload, as the requester counted them.
        given_bytes: the same as the replier counts them; another number after a translation.
        replier: None while it waits for one.
        waits_until: when NO_REPLIER is due, while the service has no replier.
        flow: of a reply that may come in parts.
    """

    requester: Requester | None
    header: Request
    columns: bytes
    payload: bytes
    asked_bytes: int
    form: Form
    own_id: int
    deadline: int
    waits_until: int
    given_bytes: int = 0
    replier: Replier | None = None
    flow: Flow | None = None


class Requester:
    """What a requester has under way: by its own ids, and the sizes of requests that ended without a word from us.

    Attributes:
        held: streamed replies whose repliers hear of its credit when it has read what waits for it; by our own ids.
    """

    __slots__ = ("held", "pending", "session", "silent")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.pending: dict[int, Pending] = {}
        self.silent: dict[int, int] = {}
        self.held: dict[int, Pending] = {}


class Replier:
    """What a replier offers and works on.

    Args:
        changes: numbers for the changes of all repliers, rising.

    Attributes:
        held: what it works on and has more credit for, of which it hears when it has proven to read.
        owed: how many of those in `working` nobody waits for any more; it has still to answer them.
        wanted: services that requests waited for when it last looked, the next to be served first.
        current: services whose heap has it as it is now.
        changed: names its last change; entries of older ones in a Schedule are void.
    """

    __slots__ = ("_changes", "changed", "current", "held", "owed", "services", "session", "wanted", "working")

    def __init__(self, session: Session, changes: Iterator[int]) -> None:
        self.session = session
        self._changes = changes
        self.services: dict[str, Service] = {}
        self.working: dict[int, Pending] = {}
        self.held: dict[int, Pending] = {}
        self.wanted: OrderedDict[Service, None] = OrderedDict()
        self.current: set[Service] = set()
        self.owed = 0
        self.changed = 0

    @property
    def is_free(self) -> bool:
        """Whether it may be given a request: it has credit, and answers what it has been given."""
        return self.owed < ANSWERS_OWED_MAX and self.session.out.is_open

    @property
    def room(self) -> int:
        """How many requests more it may be given now."""
        return max(0, self.session.out.messages_left) if self.is_free else 0

    def has_changed(self) -> None:
        """Its credit is another now: services that have it look again when they are asked, so one of many costs nothing."""
        self.changed = next(self._changes)
        if self.current:
            for service in self.current:
                service.stale.add(self)
            self.current.clear()

    def next_wanted(self) -> Pending | None:
        """A request that waits for it, of its services by turns; None when none does."""
        wanted = self.wanted
        while wanted:
            service, _ = wanted.popitem(last=False)
            pending = service.waiting.popitem(last=False)[1] if service.waiting else None
            if service.waiting:
                wanted[service] = None  # behind the others
            else:
                service.unaware.add(self)
            if pending is not None:
                return pending
        return None


class Service:
    """A name with its repliers, the free ones by readiness, and the requests that wait.

    A change of a replier, and a request that waits, are noted once for all until somebody looks: neither costs anything
    for services or repliers that have nothing to do with it.

    Attributes:
        free: by the most credit left, ties go to the one whose last change is oldest; one valid entry a replier at most.
        stale: repliers that have changed since it was asked last; not in `free`.
        unaware: repliers whose `wanted` does not have this service; none of them while a request waits.
    """

    __slots__ = ("free", "name", "repliers", "stale", "unaware", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.repliers: set[Replier] = set()
        self.free: Schedule[Replier] = Schedule()
        self.stale: set[Replier] = set()
        self.unaware: set[Replier] = set()
        self.waiting: OrderedDict[int, Pending] = OrderedDict()

    def join(self, replier: Replier) -> None:
        """It offers this service; more than once is fine."""
        if replier in self.repliers:
            return
        self.repliers.add(replier)
        replier.services[self.name] = self
        self.stale.add(replier)
        if self.waiting:
            replier.wanted[self] = None
        else:
            self.unaware.add(replier)

    def leave(self, replier: Replier) -> None:
        """It does not any more."""
        self.repliers.discard(replier)
        self.stale.discard(replier)
        self.unaware.discard(replier)
        replier.services.pop(self.name, None)
        replier.wanted.pop(self, None)
        replier.current.discard(self)

    def wait(self, pending: Pending) -> None:
        """Nobody is free: the first that is, takes it."""
        self.waiting[pending.own_id] = pending
        for replier in self.unaware:
            replier.wanted[self] = None
        self.unaware.clear()

    def readiest(self) -> Replier | None:
        """The replier with the most credit left; None when none has any."""
        if len(self.repliers) == 1:  # nothing to choose from, so no account of who is readier is kept
            (only,) = self.repliers
            return only if only.is_free else None
        free = self.free
        for replier in self.stale:
            replier.current.add(self)
            if replier.is_free:
                free.push(-replier.session.out.messages_left, replier.changed, replier)
        self.stale.clear()
        if len(free) > _ENTRIES_MIN + 4 * len(self.repliers):
            free.keep(self._is_valid)
        while free:
            change, replier = free.first()
            if self._is_valid(change, replier):
                return replier
            free.pop()
        return None

    def _is_valid(self, change: int, replier: Replier) -> bool:
        return replier.changed == change and replier in self.repliers and replier.is_free
