"""Names, topics, patterns and channels (SPEC.md 4): what is allowed, and what matches what."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable
from functools import lru_cache

from patterns.wire.errors import BadName
from patterns.wire.limits import CHANNELS, NAME_BYTES_MAX
from patterns.wire.subscriptions import Subscriptions

_NAME_REFUSED = re.compile(r"[\x00-\x20\x7f-\xa0\s/\\*>]")
_TOKEN_REFUSED = re.compile(r"[\x00-\x20\x7f-\xa0\s*>]")
_SEPARATORS = re.compile(r"[./]")  # ours and AMQP's; MQTT's
_OURS = {"#": ">", "+": "*"}
_FOREIGN_WILDCARDS = frozenset(_OURS)


def check_name(name: str, what: str) -> str:
    """The name itself. Raises BadName with the rule that it breaks; `what` is "stream", "group" or "service"."""
    _check_size(name, what)
    if _NAME_REFUSED.search(name) or name in (".", ".."):
        raise BadName(
            f"{what} name {name!r}: no white space, control characters, '/', '\\', '*' or '>', and not '.' or '..'"
        )
    return name


def check_topic(topic: str) -> str:
    """The topic itself. Raises BadName with the rule that it breaks."""
    _check_size(topic, "topic")
    for token in topic.split("."):
        if not token or _TOKEN_REFUSED.search(token):
            raise BadName(
                f"topic {topic!r}: tokens between dots, none empty, no white space, control characters, '*' or '>'"
            )
    return topic


def check_pattern(pattern: str) -> str:
    """The pattern itself. Raises BadName with the rule that it breaks."""
    _check_size(pattern, "pattern")
    tokens = pattern.split(".")
    for place, token in enumerate(tokens):
        wildcard = token == "*" or (token == ">" and place == len(tokens) - 1)
        if not wildcard and (not token or _TOKEN_REFUSED.search(token)):
            raise BadName(
                f"pattern {pattern!r}: tokens between dots; '*' stands for one whole token, '>' for the rest, last only"
            )
    return pattern


def check_meant(pattern: str) -> str:
    """A pattern that a person has written: check_pattern(), and no wildcards of MQTT and AMQP, which are ordinary here.

    Raises:
        BadName: with what was probably meant. `orders.#` would be legal on the wire, and match the topic `orders.#` alone.
    """
    if pattern == "":  # ZeroMQ's prefix for everything
        raise BadName("pattern '' is empty; '>' is everything")
    check_pattern(pattern)
    tokens = _SEPARATORS.split(pattern)
    if not _FOREIGN_WILDCARDS & set(tokens):
        return pattern
    ours = ".".join(_OURS.get(token, token) for token in tokens)
    is_ours = ">" not in ours.split(".")[:-1]
    hint = f"did you mean {ours!r}?" if is_ours else "there is none for 'any number of tokens' before the end"
    raise BadName(
        f"pattern {pattern!r}: wildcards are '*' for one token between dots and '>' for one or more at the end; {hint}"
    )


def _check_size(name: str, what: str) -> None:
    if not isinstance(name, str):
        raise BadName(f"{what} name of type {type(name).__name__}; a str is needed")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise BadName(f"{what} name {name!r} is not valid Unicode: {error.reason}") from error
    if not 1 <= size <= NAME_BYTES_MAX:
        raise BadName(f"{what} name of {size} bytes, 1 to {NAME_BYTES_MAX} allowed")


@lru_cache(maxsize=65_536)
def channel_of(topic: str) -> int:
    """The channel of a topic, 0 to 63: CRC-32 because each language has it."""
    return zlib.crc32(topic.partition(".")[0].encode()) % CHANNELS


def channels_of(pattern: str) -> int | None:
    """The one channel a pattern listens to; None: all of them."""
    first = pattern.partition(".")[0]
    return None if first in ("*", ">") else channel_of(first)


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """A cached test whether any of the patterns matches a topic. Ten thousand of them cost as little as one."""
    subscriptions: Subscriptions[None] = Subscriptions()
    for pattern in patterns:
        subscriptions.add(pattern, None)

    @lru_cache(maxsize=65_536)
    def matches(topic: str) -> bool:
        return bool(subscriptions.search(topic))

    return matches
