"""Patterns to whoever subscribed to them, and topics to all of those: a trie, and a cache in front of it."""

from __future__ import annotations

from collections import Counter
from typing import Final, Generic, TypeVar

_T = TypeVar("_T")
_TOPICS_CACHED: Final = 65_536  # a look-up costs microseconds; forgetting all of them now and then costs nothing


class _Node(Generic[_T]):
    """A token's place. `here`: patterns that end here; `rest`: patterns that end in `>` here. Values count patterns."""

    __slots__ = ("below", "here", "rest")

    def __init__(self) -> None:
        self.below: dict[str, _Node[_T]] = {}
        self.here: Counter[_T] = Counter()
        self.rest: Counter[_T] = Counter()

    @property
    def is_empty(self) -> bool:
        return not (self.below or self.here or self.rest)


class Subscriptions(Generic[_T]):
    """Who subscribed to what. Patterns and topics are valid already; a subscriber may hold one pattern several times."""

    def __init__(self) -> None:
        self._root: _Node[_T] = _Node()
        self._matched: dict[str, tuple[_T, ...]] = {}

    def add(self, pattern: str, subscriber: _T) -> None:
        """From now on topics that the pattern matches find the subscriber."""
        tokens = pattern.split(".")
        node = self._root
        for token in tokens[:-1] if tokens[-1] == ">" else tokens:
            node = node.below.setdefault(token, _Node())
        (node.rest if tokens[-1] == ">" else node.here)[subscriber] += 1
        self._matched.clear()

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
        self._matched.clear()

    def matching(self, topic: str) -> tuple[_T, ...]:
        """Everybody with a pattern that matches, each once."""
        found = self._matched.get(topic)
        if found is None:
            if len(self._matched) >= _TOPICS_CACHED:
                self._matched.clear()
            found = self._matched[topic] = self._search(topic.split("."))
        return found

    def _search(self, tokens: list[str]) -> tuple[_T, ...]:
        found: dict[_T, None] = {}
        nodes = [self._root]
        for token in tokens:
            following = []
            for node in nodes:
                found.update(dict.fromkeys(node.rest))  # `>` stands for this token and all behind it
                for key in (token, "*"):
                    below = node.below.get(key)
                    if below is not None:
                        following.append(below)
            nodes = following
        for node in nodes:
            found.update(dict.fromkeys(node.here))
        return tuple(found)
