"""What each group is told to be, as the model of groups has it: looked up after each verb and JOIN, and when a life begins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tests.simulation.lending import Key, Pair

if TYPE_CHECKING:
    from zbroker.core.catalog import Catalog
    from zbroker.core.groups import Group


class Told(NamedTuple):
    """Of one group; as first use makes it, unless somebody says otherwise.

    Attributes:
        id: index of the record that made it; a reset makes another one.
    """

    id: int = 0
    lease_us: int = 30_000_000
    is_paused: bool = False
    is_exclusive: bool = False
    dead_letter: str = ""
    max_deliveries: int = 0
    backoff_s: tuple[float, ...] = ()

    def backoff_us(self, attempt: int) -> int:
        """How long a message waits whose attempt of this number has failed."""
        steps = self.backoff_s
        return int(steps[min(attempt, len(steps)) - 1] * 1e6) if steps else 0


class Policies:
    """All groups.

    Attributes:
        changed: those that make something else of failures than when this life began.
    """

    def __init__(self) -> None:
        self._told: dict[Pair, Told] = {}
        self.changed: set[Pair] = set()

    def begin(self) -> None:
        """A life of the broker."""
        self.changed.clear()

    def of(self, pair: Pair) -> Told:
        return self._told.get(pair, Told())

    def key(self, pair: Pair) -> Key:
        """The group that has the name now."""
        return (*pair, self.of(pair).id)

    def is_now(self, key: Key) -> bool:
        """Whether nobody has reset it."""
        return self.key(key[:2]) == key

    def by_id(self, id: int) -> Key | None:
        """The group that this record has made, if it is still there; damage may have taken its stream's name."""
        return next((self.key(pair) for pair, told in self._told.items() if told.id == id), None)

    def look(self, catalog: Catalog) -> Iterator[tuple[Pair, Told, Told]]:
        """What is not as it was: the group, before, and now. One that is not there any more has the id 0."""
        gone = {pair: told for pair, told in self._told.items() if told.id}
        for log in list(catalog.by_name.values()):
            for group in list(log.groups.values()):
                pair, now = (log.name, group.name), _told(group)
                gone.pop(pair, None)
                before = self._told.get(pair, now)
                self._told[pair] = now
                if (before.dead_letter, before.max_deliveries) != (now.dead_letter, now.max_deliveries):
                    self.changed.add(pair)
                if before != now:
                    yield pair, before, now
        for pair, before in gone.items():
            self._told[pair] = Told()
            yield pair, before, Told()


def _told(group: Group) -> Told:
    config = group.config
    return Told(
        group.id,
        int(config.lease_s * 1e6),
        group.is_paused,
        config.exclusive,
        config.dead_letter,
        config.max_deliveries,
        tuple(config.backoff_s),
    )
