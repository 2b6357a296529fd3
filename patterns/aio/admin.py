"""The Admin of the asyncio shell."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from patterns.aio.driver import AioDriver
from patterns.aio.role import AioRole
from patterns.core import verbs
from patterns.core.verbs import Verb
from patterns.roles.admin import AdminRole
from patterns.wire.configs import GroupConfig, Start, StreamConfig


class Admin(AdminRole[AioDriver], AioRole):
    """Asks a broker about itself, and tells it what its streams and groups are to be; tasks of one loop may share it.

    A verb returns when what it changed is on disk. What it returns is told as it travels: durations in the unit that their
    key ends with, instants (`published_at` and the like) in milliseconds since 1970; SPEC.md 10 has each key.

    Every verb raises Unavailable when no broker answers, TimedOut when it has not in time, OutcomeUnknown when the
    connection broke before it did (ask again: a verb that was done already changes nothing), and BadName or BadArgument for
    what no broker would take. StorageFailed of those that change something, on a disk that has failed.

    Args:
        address: `zb://` of brokers. None: ZBROKER_URL.
        timeout_s: how long a verb waits for its answer, the connection included.
        security: not built yet.

    Raises:
        BadAddress; NotInThisDeployment peer to peer.
    """

    def __init__(self, address: str | None = None, *, timeout_s: float = 5.0, security: object = None) -> None:
        super().__init__(AioDriver, address, timeout_s=timeout_s, security=security)

    async def status(self) -> dict[str, Any]:
        """What the broker holds and does: `streams`, `groups`, `services`, `subscriptions`, `sessions`, `counters`,
        `refused`, `guard`, `journal`, `warnings`, and more; SPEC.md 10.1 has what is counted.

        Raises:
            Unavailable: no broker answers.
            TimedOut: it has not answered in time.
            OutcomeUnknown: the connection broke before it did.
        """
        return await self._driver.drive(self._ask(Verb("status", {})))

    # -- streams ---------------------------------------------------------------------------------------------------

    async def create_stream(
        self, config: StreamConfig, *, dry_run: bool = False, change: bool = False
    ) -> dict[str, Any]:
        """Make a stream, or see to it that it is there with this configuration.

        Args:
            config: all of it: what is not named has its default.
            dry_run: say what would happen, and do nothing.
            change: a stream that is there with another configuration gets this one.

        Returns:
            `created`, and `changes`: a list of {field, before, after, applies}, the last saying from when on it counts.

        Raises:
            AlreadyExists: it is there with another configuration, and `change` is not set.
        """
        return await self._driver.drive(self._ask(verbs.create(StreamConfig, config, dry_run=dry_run, change=change)))

    async def list_streams(self) -> list[dict[str, Any]]:
        """A row of each stream, in the order in which they were made."""
        return await self._driver.drive(self._all(verbs.list_of("list_streams"), "streams"))

    async def show_stream(self, stream: str) -> dict[str, Any]:
        """A stream's row, its `config`, and when its first and last messages were published.

        Raises:
            NoSuchStream.
        """
        return await self._driver.drive(self._ask(verbs.of_stream("show_stream", stream)))

    async def purge_stream(
        self, stream: str, *, keep: int | None = None, before: int | datetime | None = None
    ) -> dict[str, Any]:
        """Throw away messages, the oldest first: all, or some. What groups have not settled counts as expired there.

        Args:
            keep: leave so many of the newest.
            before: leave this offset, or what was published at this instant, and what is newer.

        Raises:
            NoSuchStream.
        """
        return await self._driver.drive(self._ask(verbs.purge_stream(stream, keep, before)))

    async def delete_stream(self, stream: str) -> dict[str, Any]:
        """Throw away a stream, its messages and its groups. Its members and readers get NoSuchStream.

        Raises:
            NoSuchStream.
        """
        return await self._driver.drive(self._ask(verbs.of_stream("delete_stream", stream)))

    # -- groups ----------------------------------------------------------------------------------------------------

    async def create_group(self, config: GroupConfig, *, dry_run: bool = False, change: bool = False) -> dict[str, Any]:
        """Make a group, and its stream if there is none; or see to it that it is there with this configuration.

        Args, Returns, Raises: as create_stream(); BadArgument also for dead letters that would go round in a circle.
        """
        return await self._driver.drive(self._ask(verbs.create(GroupConfig, config, dry_run=dry_run, change=change)))

    async def list_groups(self, stream: str | None = None) -> list[dict[str, Any]]:
        """A row of each group, of one stream or of all.

        Raises:
            NoSuchStream.
        """
        return await self._driver.drive(self._all(verbs.list_of("list_groups", stream), "groups"))

    async def show_group(self, stream: str, group: str) -> dict[str, Any]:
        """A group's row, its `config`, its members (`member_rows`), and its `oldest` message with who holds it.

        Raises:
            NoSuchStream, NoSuchGroup.
        """
        return await self._driver.drive(self._ask(verbs.of_group("show_group", stream, group)))

    async def reset_group(self, stream: str, group: str, start: Start | None = None) -> dict[str, Any]:
        """Let a group begin again, with a new account. Its members stay; what they hold of before is stale.

        Args:
            start: `first`, `new`, an offset, or an aware datetime; None: the start of its configuration.

        Raises:
            NoSuchStream, NoSuchGroup.
        """
        return await self._driver.drive(self._ask(verbs.reset_group(stream, group, start)))

    async def pause_group(self, stream: str, group: str) -> dict[str, Any]:
        """Give nothing to a group's members until it is resumed. What they hold they may settle.

        Raises:
            NoSuchStream, NoSuchGroup.
        """
        return await self._driver.drive(self._ask(verbs.of_group("pause_group", stream, group)))

    async def resume_group(self, stream: str, group: str) -> dict[str, Any]:
        """Go on after pause_group().

        Raises:
            NoSuchStream, NoSuchGroup.
        """
        return await self._driver.drive(self._ask(verbs.of_group("resume_group", stream, group)))

    async def delete_group(self, stream: str, group: str) -> dict[str, Any]:
        """Throw away a group: what it has and has not settled. Its members get NoSuchGroup.

        Raises:
            NoSuchStream, NoSuchGroup.
        """
        return await self._driver.drive(self._ask(verbs.of_group("delete_group", stream, group)))

    # -- dead letters ----------------------------------------------------------------------------------------------

    async def list_dead(self, stream: str | None = None) -> list[dict[str, Any]]:
        """A row of each stream that has dead letters or is named by a group for them, or of one: how many of its `letters`
        are `pending` because nobody has sent them back, and which groups they come from.

        Raises:
            NoSuchStream.
        """
        return await self._driver.drive(self._rows(verbs.list_of("list_dead", stream), "streams"))

    async def show_dead(
        self, stream: str, *, first: int = 0, count: int | None = None, all: bool = False
    ) -> dict[str, Any]:
        """Dead letters, with the reason, the origin and the attempts of each, and the first words of its body.

        Args:
            stream: the dead-letter stream.
            first: from this offset on; `next` of the result goes on from there.
            count: so many at most, 500 at the most; None: 20.
            all: those too that were sent back already.

        Raises:
            NoSuchStream; BadArgument: the stream has had no dead letters.
        """
        return await self._driver.drive(self._ask(verbs.show_dead(stream, first, count, all)))

    async def redrive_dead(
        self,
        stream: str,
        *,
        count: int | None = None,
        to: str | None = None,
        first: int | None = None,
        last: int | None = None,
    ) -> dict[str, Any]:
        """Send dead letters back to the groups where they died, and to no others.

        Args:
            stream: the dead-letter stream.
            count: so many at most; None: all that nobody has sent back.
            to: a stream where they go instead, for all of its groups.
            first, last: only from this offset on, only up to this one.

        Returns:
            How many were `redriven`, were `skipped` and why, and are `pending` still; `stopped` says what hindered the rest.

        Raises:
            NoSuchStream; BadArgument: the stream has had no dead letters; StorageFull.
        """
        return await self._driver.drive(self._ask(verbs.redrive_dead(stream, count, to, first, last)))
