"""What the broker knows of a request, of the ends it runs between, and of a service's readiness. Nothing is sent here."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from patterns.wire.frames import Form
from patterns.wire.messages import Request
from patterns.wire.server import Session
from zbroker.core.flow import Flow
from zbroker.core.schedule import Schedule


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
    """What a replier offers and works on. `changed` names its last change; entries of older ones in a Schedule are void.

    Attributes:
        held: what it works on and has more credit for, of which it hears when it has proven to read.
    """

    __slots__ = ("changed", "held", "services", "session", "working")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.services: dict[str, Service] = {}
        self.working: dict[int, Pending] = {}
        self.held: dict[int, Pending] = {}
        self.changed = 0


class Service:
    """A name with its repliers, the free ones by readiness, and the requests that wait."""

    __slots__ = ("free", "name", "repliers", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.repliers: set[Replier] = set()
        self.free: Schedule[Replier] = Schedule()
        self.waiting: OrderedDict[int, Pending] = OrderedDict()

    def noted(self, replier: Replier, change: int) -> None:
        """A replier has free credit: most left is asked first, ties go to the one whose last change is oldest."""
        self.free.push(-replier.session.out.messages_left, change, replier)

    def readiest(self) -> Replier | None:
        """The replier with the most credit left; None when none has any."""
        free = self.free
        if len(free) > 64 + 4 * len(self.repliers):
            free.keep(self._is_valid)
        while free:
            change, replier = free.first()
            if self._is_valid(change, replier):
                return replier
            free.pop()
        return None

    def _is_valid(self, change: int, replier: Replier) -> bool:
        return replier.changed == change and self.name in replier.services and replier.session.out.is_open
