"""Patterns to whoever subscribed to them, and topics to all of those: a trie, and a cache in front of it.

A broker asks who hears a topic; a subscriber with ten thousand patterns, whether it does.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

_T = TypeVar("_T")
_TOPICS_CACHED: Final = 65_536  # a look-up costs microseconds; forgetting all of them now and then costs nothing
_LISTENERS_CACHED: Final = 1_048_576  # of all cached answers together, 8 bytes each: many subscribers, many topics


class _Node(Generic[_T]):
    """A token's place. `here`: patterns that end here; `rest`: patterns that end in `>` here. Values count patterns."""

    __slots__ = ("below", "here", "rest")

    def __init__(self) -> None:
        self.below: dict[str, _Node[_T]] = {}
        self.here: dict[_T, int] = {}
        self.rest: dict[_T, int] = {}

    @property
    def is_empty(self) -> bool:
        return not (self.below or self.here or self.rest)


class Subscriptions(Generic[_T]):
    """Who subscribed to what. Patterns and topics are valid already; a subscriber may hold one pattern several times."""

    def __init__(self) -> None:
        self._root: _Node[_T] = _Node()
        self._matched: dict[str, tuple[_T, ...]] = {}
        self._answers: dict[tuple[_T, ...], tuple[_T, ...]] = {}  # each once: a thousand topics share one of a thousand
        self._listeners_cached = 0

    def add(self, pattern: str, subscriber: _T) -> None:
        """From now on topics that the pattern matches find the subscriber."""
        tokens = pattern.split(".")
        node = self._root
        for token in tokens[:-1] if tokens[-1] == ">" else tokens:
            following = node.below.get(token)
            if following is None:
                following = node.below[token] = _Node()
            node = following
        held = node.rest if tokens[-1] == ">" else node.here
        held[subscriber] = held.get(subscriber, 0) + 1
        self._forget()

    def remove(self, pattern: str, subscriber: _T) -> None:
        """Undo one add()."""
        tokens = pattern.split(".")
        path = [self._root]
        for token in tokens[:-1] if tokens[-1] == ">" else tokens:
            path.append(path[-1].below[token])
        held = path[-1].rest if tokens[-1] == ">" else path[-1].here
        held[subscriber] -= 1
        if not held[subscriber]:
            del held[subscriber]
        for node, parent, token in zip(
            reversed(path), reversed(path[:-1]), reversed(tokens[: len(path) - 1]), strict=False
        ):
            if not node.is_empty:
                break
            del parent.below[token]
        self._forget()

    def matching(self, topic: str) -> tuple[_T, ...]:
        """Everybody with a pattern that matches, each once. Topics that the same subscribers hear share one answer."""
        found = self._matched.get(topic)
        if found is None:
            found = self._matched[topic] = self._remember(self.search(topic))
        return found

    def search(self, topic: str) -> tuple[_T, ...]:
        """As matching(), past the cache."""
        tokens = topic.split(".")
        if "" in tokens:
            return ()  # no topic; a peer may write what it likes
        found: dict[_T, int] = {}
        nodes = [self._root]
        for token in tokens:
            following = []
            for node in nodes:
                if node.rest:  # `>` stands for this token and all behind it
                    found |= node.rest
                for key in (token, "*"):
                    below = node.below.get(key)
                    if below is not None:
                        following.append(below)
            nodes = following
        for node in nodes:
            if node.here:
                found |= node.here
        return tuple(found)

    def _remember(self, found: tuple[_T, ...]) -> tuple[_T, ...]:
        if len(self._matched) >= _TOPICS_CACHED or self._listeners_cached >= _LISTENERS_CACHED:
            self._forget()
        shared = self._answers.setdefault(found, found)
        if shared is found:
            self._listeners_cached += len(found)
        return shared

    def _forget(self) -> None:
        if self._matched:
            self._matched.clear()
            self._answers.clear()
            self._listeners_cached = 0
