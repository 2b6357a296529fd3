"""Who configures streams and groups, changes, pauses and resets them, and holds the broker to what it has answered."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Final

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
PASSING: Final = (OutcomeUnknown, ShuttingDown, StorageFailed, StorageFull, NoSuchStream, NoSuchGroup)
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
    """

    def __init__(self, pair: Pair, config: GroupConfig | StreamConfig) -> None:
        self.pair = pair  # of a stream, without a group
        self.creates = "create_group" if pair[1] else "create_stream"
        self.config = config
        self.may_be: list[GroupConfig | StreamConfig | None] = [None]
        self.may_pause: set[bool] = {False}
        self.unknown: list[GroupConfig | StreamConfig] = []
        self.unknown_pause: set[bool] = set()
        self.is_made = False


class Steward(Client):
    """One verb at a time for each group; whatever it was told is done must stay so."""

    def __init__(self, world: World, dice: Random) -> None:
        super().__init__(world, "steward")
        self.wishes = {pair: Wish(pair, self._config(pair, dice)) for pair in world.pairs}
        if dice.random() < 0.75:
            streams = {stream: self._stream_config(stream, dice) for stream, _ in world.pairs}
            self.wishes |= {(stream, ""): Wish((stream, ""), config) for stream, config in streams.items()}
        self._asked: dict[int, tuple[Wish, str, Any]] = {}

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
        for wish, verb, value in self._asked.values():
            self._became_unknown(wish, verb, value)
        self._asked.clear()
        return AdminEngine([ADDRESS], self.nonce(), self.jitter)

    def act(self, now: int) -> int:
        busy = [wish.pair for wish, *_ in self._asked.values()]
        for pair, wish in self.wishes.items():
            if pair not in busy:
                self._do(wish, now)
        return QUIET_US if self.is_quiet else self.random.randint(100_000, 3_000_000)

    def _do(self, wish: Wish, now: int) -> None:
        if not wish.is_made:
            self._ask(wish, wish.creates, wish.config, now)
        elif not wish.pair[1]:
            if not self.is_quiet and self.random.random() < 0.1:
                wish.config = self._config(wish.pair, self.random)
                self._ask(wish, wish.creates, wish.config, now)
        elif True in wish.may_pause:
            if self.is_quiet or self.random.random() < 0.6:
                self._ask(wish, "resume_group", False, now)
        elif not self.is_quiet:
            self._vary(wish, now)

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
            case "reset_group" if value is not None:
                arguments["start"] = value
            case "show_stream" | "list_groups":
                arguments = {"stream": stream}
            case "list_streams":
                arguments = {}
            case "purge_stream":
                arguments = {"stream": "graves"} if value is None else {"stream": "graves", "keep": value}
            case "list_dead" | "delete_stream":
                arguments = {"stream": "graves"}
            case "redrive_dead":
                arguments = {"stream": "graves"} if value is None else {"stream": "graves", "count": value}
        self._asked[self.engine.ask(verb, arguments, now)] = wish, verb, value

    def take(self, event: Any, now: int) -> None:
        if not isinstance(event, Answered):
            return
        require(event.id in self._asked, f"11: verb {event.id} of {self.name} is answered twice")
        wish, verb, value = self._asked.pop(event.id)
        if event.error is None:
            self.world.coverage[f"verb_{verb}"] += 1
            self._done(wish, verb, value, event)
        elif verb == "redrive_dead" and isinstance(event.error, BadArgument | StreamFull):
            pass  # there are no dead letters yet, or there is no room where they go
        elif not isinstance(event.error, PASSING):
            raise Violation(f"11: {verb} of {wish.pair} is refused: {event.error.name}: {event.error}")
        else:
            self._became_unknown(wish, verb, value)

    def _done(self, wish: Wish, verb: str, value: Any, event: Answered) -> None:
        """What was asked for before, with an outcome that nobody knows, may be under way even now, on an older connection."""
        if verb == wish.creates:
            wish.is_made = True
            wish.may_be = [value, *wish.unknown]
        elif verb in ("pause_group", "resume_group"):
            wish.may_pause = {value} | wish.unknown_pause
            if self.is_quiet:
                wish.may_pause = {value}
        elif verb == "redrive_dead":
            self.world.coverage["redriven"] += msgspec.msgpack.decode(event.payload)[0].get("redriven", 0)
        elif verb == "show_group":
            shown = msgspec.msgpack.decode(event.payload)[0]
            require(shown["balanced"], f"8: {wish.pair} is shown unbalanced: {shown}")

    def _became_unknown(self, wish: Wish, verb: str, value: Any) -> None:
        if verb == wish.creates:
            wish.unknown.append(value)
        elif verb in ("pause_group", "resume_group"):
            wish.unknown_pause.add(value)

    def settled(self) -> bool:
        return self.engine is None or (
            not self._asked and all(True not in wish.may_pause for wish in self.wishes.values())
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
            require(not wish.is_made, f"11: stream {stream} was made, and is not there")
            return
        is_known = log.config in wish.may_be or (None in wish.may_be and log.config == StreamConfig(stream))
        require(is_known, f"11: {stream} is told to be {wish.may_be[-1]}, and is {log.config}")

    def check(self, pair: Pair, group: Group | None) -> None:
        """A life begins, or its books are looked through."""
        wish = self.wishes.get(pair)
        if wish is None:
            return
        if group is None:
            require(not wish.is_made, f"11: group {pair} was made, and is not there")
            return
        is_default = group.config == GroupConfig(*pair)
        is_known = group.config in wish.may_be or (None in wish.may_be and is_default)
        require(is_known, f"11: {pair} is told to be {wish.may_be[-1]}, and is {group.config}")
        require(group.is_paused in wish.may_pause, f"11: {pair} is paused: {group.is_paused}, told {wish.may_pause}")
