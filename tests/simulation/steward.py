"""Who configures streams and groups, changes, pauses and resets them, purges and deletes, and holds the broker to its answers."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from patterns.core.admin import AdminEngine, Answered
from patterns.wire.configs import GroupConfig, StreamConfig, told
from patterns.wire.errors import (
    BadArgument,
    NoSuchGroup,
    NoSuchStream,
    OutcomeUnknown,
    ShuttingDown,
    StorageFailed,
    StorageFull,
    StreamFull,
)
from tests.simulation.client import ADDRESS, Client
from tests.simulation.violation import Violation, require

if TYPE_CHECKING:
    from tests.simulation.world import World
    from zbroker.core.groups import Group
    from zbroker.core.log import StreamLog

Pair = tuple[str, str]
PASSING: Final = (OutcomeUnknown, ShuttingDown, StorageFailed, StorageFull)
GRAVES: Final = (
    "redrive_dead",
    "list_dead",
    "purge_stream",
    "delete_stream",
)  # asked for beside a group, of its dead letters
SHOWING: Final = ("show_group", "list_groups", "show_stream", "list_streams", "list_dead")
CAPTURED: Final[tuple[list[str], ...]] = ([], [], ["orders.>"], ["*.eu", "orders.*"], ["stock", "orders.us"], [">"])
QUIET_US: Final = 100_000


class Wish:
    """What is to be true of one group.

    Attributes:
        config: that it shall have in the end.
        may_be: configurations that it can have now: the last one that was confirmed, and what was asked for since and before
            with an outcome that nobody knows. None: that of first use, too.
        may_pause: the same of whether it is paused.
        deletions: asked for, without an answer, or with an outcome that nobody knows: it may go at any time.
        last_deletion: which verb has asked for the last one; what was asked for before says nothing of what comes after it.
        resumed_in: the life of the broker in which it was said to go on, once the end has come.
    """

    def __init__(self, pair: Pair, config: GroupConfig | StreamConfig) -> None:
        self.pair = pair  # of a stream, without a group
        self.creates = "create_group" if pair[1] else "create_stream"
        self.config = config
        self.may_be: list[GroupConfig | StreamConfig | None] = [None]
        self.may_pause: set[bool] = {False}
        self.unknown: list[GroupConfig | StreamConfig] = []
        self.unknown_pause: set[bool] = set()
        self.is_made = self.is_paused = False
        self.deletions = self.last_deletion = self.resumed_in = 0

    def may_be_gone(self) -> bool:
        """Whether it need not be there."""
        return not self.is_made or self.deletions > 0

    def ends(self, verb: int) -> None:
        """It is to be deleted; whoever uses its name then makes another one."""
        self.is_made = False
        self.deletions += 1
        self.last_deletion = verb
        self.may_be.append(None)
        self.may_pause.add(False)

    def is_there(self, asked: int, config: GroupConfig | StreamConfig) -> None:
        """It was made, or changed. What was asked for before, with an outcome that nobody knows, may be under way even now."""
        self.is_made = asked > self.last_deletion
        self.may_be = [config, *self.unknown] if not self.may_be_gone() else [config, None, *self.unknown]


class Asked(NamedTuple):
    """A verb that has no answer yet."""

    number: int
    wish: Wish
    verb: str
    value: Any
    life: int
    target: Pair  # what a verb that removes is about
    id: int  # which that was, by what was on disk

    def ends(self) -> bool:
        """Whether it deletes what is wished for."""
        return self.verb == "delete_group" or (self.verb == "delete_stream" and not self.wish.pair[1])


class Steward(Client):
    """One verb at a time for each group; whatever it was told is done must stay so."""

    def __init__(self, world: World, dice: Random) -> None:
        super().__init__(world, "steward")
        self.wishes = {pair: Wish(pair, self._config(pair, dice)) for pair in world.pairs}
        if dice.random() < 0.75:
            streams = {stream: self._stream_config(stream, dice) for stream, _ in world.pairs}
            self.wishes |= {(stream, ""): Wish((stream, ""), config) for stream, config in streams.items()}
        self._asked: dict[int, Asked] = {}
        self._count = 0

    def _stream_config(self, stream: str, dice: Random) -> StreamConfig:
        """What is kept, what is captured, and which message ids are remembered."""
        return replace(
            self._kept(stream, dice),
            topics=dice.choice(CAPTURED),
            dedup_s=dice.choice([120.0, 120.0, 120.0, 2.0, 0.0]),
            dedup_ids_max=dice.choice([100_000, 100_000, 20, 3]),
        )

    def _kept(self, stream: str, dice: Random) -> StreamConfig:
        if dice.random() < 0.5:
            bytes_max, messages_max = dice.choice([(None, 100), (60_000, None), (None, None)])
            return StreamConfig(stream, retention="work", bytes_max=bytes_max, messages_max=messages_max)
        bytes_max = dice.choice([None, 30_000])
        return StreamConfig(
            stream,
            age_max_s=dice.choice([None, 5.0]),
            keep_unsettled=dice.random() < 0.7,
            bytes_max=bytes_max,
            messages_max=dice.choice([None, 50]),
            quota_bytes=dice.choice([None, 400_000]) if bytes_max else None,  # else it may be full for ever
        )

    def _config(self, pair: Pair, dice: Random) -> GroupConfig | StreamConfig:
        if not pair[1]:
            return self._stream_config(pair[0], dice)
        dead_letter = dice.choice(["", "graves", "graves"])
        return GroupConfig(
            *pair,
            lease_s=dice.choice([30.0, 30.0, 12.0, 3.0]),
            exclusive=dice.random() < 0.25,
            unsettled_max=dice.choice([1_000_000, 1_000_000, 40]),
            dead_letter=dead_letter,
            backoff_s=dice.choice([[], [], [0.5], [0.1, 3.0]]),
            max_deliveries=dice.choice([0, 1, 2, 5]) if dead_letter else 0,
        )

    def make_engine(self) -> AdminEngine:
        for asked in self._asked.values():
            self._became_unknown(asked)
        self._asked.clear()
        return AdminEngine([ADDRESS], self.nonce(), self.jitter)

    def act(self, now: int) -> int:
        busy = [asked.wish.pair for asked in self._asked.values()]
        for pair, wish in self.wishes.items():
            if pair not in busy:
                self._do(wish, now)
        return QUIET_US if self.is_quiet else self.random.randint(100_000, 3_000_000)

    def _do(self, wish: Wish, now: int) -> None:
        if not wish.is_made:
            self._ask(wish, wish.creates, wish.config, now)
        elif self.is_quiet:
            if not self._goes_on(wish):
                self._ask(wish, "resume_group", False, now)
        elif not wish.pair[1]:
            self._vary_stream(wish, now)
        elif wish.is_paused:
            if self.random.random() < 0.6:
                self._ask(wish, "resume_group", False, now)
        else:
            self._vary(wish, now)

    def _goes_on(self, wish: Wish) -> bool:
        """Whether this life of the broker was told so: damage may have taken the record of an earlier time."""
        return not wish.pair[1] or wish.resumed_in == self.world.truth.lives

    def _vary_stream(self, wish: Wish, now: int) -> None:
        chance = self.random.random()
        if chance < 0.1:
            wish.config = self._config(wish.pair, self.random)
            self._ask(wish, wish.creates, wish.config, now)
        elif chance < 0.15:
            self._ask(wish, "purge_stream", self.random.choice([None, 3, 30]), now)
        elif chance < 0.17:
            self._ask(wish, "delete_stream", None, now)

    def _vary(self, wish: Wish, now: int) -> None:
        chance = self.random.random()
        if chance < 0.1:
            self._ask(wish, "pause_group", True, now)
        elif chance < 0.15:
            self._ask(wish, "reset_group", self.random.choice(["first", "new", None]), now)
        elif chance < 0.25:
            wish.config = self._config(wish.pair, self.random)
            self._ask(wish, "create_group", wish.config, now)
        elif chance < 0.35:
            self._ask(wish, "redrive_dead", self.random.choice([1, 20, None]), now)
        elif chance < 0.38:
            self._ask(wish, "purge_stream", self.random.choice([None, 3]), now)
        elif chance < 0.4:
            self._ask(wish, "delete_stream", None, now)
        elif chance < 0.43:
            self._ask(wish, "delete_group", None, now)
        elif chance < 0.5:
            self._ask(wish, self.random.choice(SHOWING), None, now)

    def _ask(self, wish: Wish, verb: str, value: Any, now: int) -> None:
        stream, group = wish.pair
        arguments: dict[str, object] = {"stream": stream, "group": group}
        match verb:
            case "create_group" | "create_stream":
                wish.may_be.append(value)
                arguments = {"config": told(value), "change": True}
            case "pause_group" | "resume_group":
                wish.may_pause.add(value)
                wish.is_paused = True
            case "reset_group" if value is not None:
                arguments["start"] = value
            case "show_stream" | "list_groups":
                arguments = {"stream": stream}
            case "list_streams":
                arguments = {}
            case "purge_stream":
                name = "graves" if group else stream
                arguments = {"stream": name} if value is None else {"stream": name, "keep": value}
            case "delete_stream":
                arguments = {"stream": "graves" if group else stream}
            case "list_dead":
                arguments = {"stream": "graves"}
            case "redrive_dead":
                arguments = {"stream": "graves"} if value is None else {"stream": "graves", "count": value}
        self._count += 1
        target = str(arguments.get("stream", "")), group if verb == "delete_group" else ""
        truth = self.world.truth
        asked = Asked(self._count, wish, verb, value, truth.lives, target, truth.holdings.id_of(*target))
        self._asked[self.engine.ask(verb, arguments, now)] = asked
        if asked.ends():
            for one in self._ended_by(wish):
                one.ends(asked.number)

    def _ended_by(self, wish: Wish) -> list[Wish]:
        """A stream takes its groups with it."""
        stream, group = wish.pair
        return [wish] if group else [one for pair, one in self.wishes.items() if pair[0] == stream]

    def may_end(self, stream: str, group: str = "") -> bool:
        """Whether it was ever asked for that it be deleted."""
        return any(
            wish.last_deletion
            for pair in ((stream, ""), (stream, group))
            if (wish := self.wishes.get(pair)) is not None
        )

    def take(self, event: Any, now: int) -> None:
        if not isinstance(event, Answered):
            return
        require(event.id in self._asked, f"11: verb {event.id} of {self.name} is answered twice")
        asked = self._asked.pop(event.id)
        if event.error is None:
            self.world.coverage[f"verb_{asked.verb}"] += 1
            self._done(asked, event)
        elif asked.verb == "redrive_dead" and isinstance(event.error, BadArgument | StreamFull):
            pass  # there are no dead letters yet, or there is no room where they go
        elif isinstance(event.error, NoSuchGroup | NoSuchStream):
            self._not_there(asked, event.error)
        elif not isinstance(event.error, PASSING):
            raise Violation(f"11: {asked.verb} of {asked.wish.pair} is refused: {event.error.name}: {event.error}")
        else:
            self._became_unknown(asked)

    def _not_there(self, asked: Asked, error: Exception) -> None:
        """Nothing was done; of dead letters there are none yet."""
        wish = asked.wish
        is_of_graves = bool(wish.pair[1]) and asked.verb in GRAVES
        is_right = is_of_graves or wish.may_be_gone() or self.world.truth.is_damaged
        require(is_right, f"11: {asked.verb} of {wish.pair} is refused, and it was made: {error}")
        if asked.verb == "resume_group":
            wish.resumed_in = asked.life
        if asked.ends():
            self._has_ended(asked)

    def _has_ended(self, asked: Asked) -> None:
        """The deletion has its answer: no more is to come of it."""
        for one in self._ended_by(asked.wish):
            one.deletions -= 1

    def _done(self, asked: Asked, event: Answered) -> None:
        number, wish, verb, value, life, *_ = asked
        result = msgspec.msgpack.decode(event.payload)[0]
        if verb == wish.creates:
            wish.is_there(number, value)
        elif verb in ("pause_group", "resume_group"):
            wish.may_pause = {value} | wish.unknown_pause | ({False} if wish.may_be_gone() else set())
            wish.is_paused = value
            if self.is_quiet and not value:
                wish.may_pause, wish.resumed_in = {value}, life
        elif verb == "redrive_dead":
            self.world.coverage["redriven"] += result.get("redriven", 0)
        elif verb == "purge_stream" and result["purged"]:
            is_told = self.world.truth.holdings.is_purged(asked.target[0], result["below"])
            require(
                is_told or self.world.truth.is_damaged, f"11: {asked.target} is purged, and no record on disk says so"
            )
        elif verb == "show_group":
            require(result["balanced"], f"8: {wish.pair} is shown unbalanced: {result}")
        elif verb in ("delete_stream", "delete_group"):
            self._check_deleted(asked)
            if asked.ends():
                self._has_ended(asked)

    def _check_deleted(self, asked: Asked) -> None:
        """What was there when it was asked for is gone, by a record on disk."""
        is_gone = asked.id == 0 or self.world.truth.holdings.id_of(*asked.target) != asked.id
        require(is_gone or self.world.truth.is_damaged, f"11: {asked.target} is deleted, and no record on disk says so")

    def _became_unknown(self, asked: Asked) -> None:
        if asked.verb == asked.wish.creates:
            asked.wish.unknown.append(asked.value)
        elif asked.verb in ("pause_group", "resume_group"):
            asked.wish.unknown_pause.add(asked.value)

    def settled(self) -> bool:
        return self.engine is None or (
            not self._asked and all(wish.is_made and self._goes_on(wish) for wish in self.wishes.values())
        )

    @property
    def captures(self) -> bool:
        """Whether any stream is to store live messages."""
        return any(isinstance(wish.config, StreamConfig) and wish.config.topics for wish in self.wishes.values())

    # -- what the broker is held to ------------------------------------------------------------------------------------

    def check_stream(self, stream: str, log: StreamLog | None) -> None:
        """The same of a stream."""
        wish = self.wishes.get((stream, ""))
        if wish is None:
            return
        if log is None:
            require(wish.may_be_gone(), f"11: stream {stream} was made, and is not there")
            return
        is_known = log.config in wish.may_be or (None in wish.may_be and log.config == StreamConfig(stream))
        require(is_known, f"11: {stream} is told to be {wish.may_be[-1]}, and is {log.config}")

    def check(self, pair: Pair, group: Group | None) -> None:
        """A life begins, or its books are looked through."""
        wish = self.wishes.get(pair)
        if wish is None:
            return
        if group is None:
            require(wish.may_be_gone(), f"11: group {pair} was made, and is not there")
            return
        is_default = group.config == GroupConfig(*pair)
        is_known = group.config in wish.may_be or (None in wish.may_be and is_default)
        require(is_known, f"11: {pair} is told to be {wish.may_be[-1]}, and is {group.config}")
        require(group.is_paused in wish.may_pause, f"11: {pair} is paused: {group.is_paused}, told {wish.may_pause}")
