"""Patterns to whoever subscribed to them, and topics to all of those: a trie, and a cache in front of it.

A broker asks who hears a topic; a subscriber with ten thousand patterns, whether it does.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

_T = TypeVar("_T")
_TOPICS_CACHED: Final = 65_536  # a look-up costs microseconds; forgetting all of them now and then costs nothing
_LISTENERS_CACHED: Final = 1_048_576  # of all cached answers together, 8 bytes each: many subscribers, many topics


class _Node(Generic[_T]):
    """A token's place; 80 bytes. Most have one node below and end no pattern, so dicts are made when they are needed.

    Attributes:
        token, only: the one node below, and its token; None when there are none, or several.
        below: those below by token, once there were several.
        here: patterns that end here.
        rest: patterns that end in `>` here. Values count patterns.
    """

    __slots__ = ("below", "here", "only", "rest", "token")

    def __init__(self) -> None:
        self.token = ""
        self.only: _Node[_T] | None = None
        self.below: dict[str, _Node[_T]] | None = None
        self.here: dict[_T, int] | None = None
        self.rest: dict[_T, int] | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.only or self.below or self.here or self.rest)

    def get(self, token: str) -> _Node[_T] | None:
        """The node below with this token."""
        if self.below is not None:
            return self.below.get(token)
        return self.only if self.token == token else None

    def make(self, token: str) -> _Node[_T]:
        """The node below with this token, made if there is none."""
        node = self.get(token)
        if node is None:
            node = _Node()
            if self.below is not None:
                self.below[token] = node
            elif self.only is None:
                self.token, self.only = token, node
            else:
                self.below = {self.token: self.only, token: node}
                self.token, self.only = "", None
        return node

    def drop(self, token: str) -> None:
        """Forget the node below with this token."""
        if self.below is not None:
            del self.below[token]
        else:
            self.token, self.only = "", None

    def count(self, rest: bool, subscriber: _T, step: int) -> None:
        """One pattern of this subscriber more, or less, that ends here."""
        held = self.rest if rest else self.here
        if held is None:
            held = {}
            if rest:
                self.rest = held
            else:
                self.here = held
        held[subscriber] = held.get(subscriber, 0) + step
        if not held[subscriber]:
            del held[subscriber]


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
            node = node.make(token)
        node.count(tokens[-1] == ">", subscriber, 1)
        self._forget()

    def remove(self, pattern: str, subscriber: _T) -> None:
        """Undo one add()."""
        tokens = pattern.split(".")
        path = [self._root]
        for token in tokens[:-1] if tokens[-1] == ">" else tokens:
            path.append(path[-1].make(token))  # it is there
        path[-1].count(tokens[-1] == ">", subscriber, -1)
        for node, parent, token in zip(
            reversed(path), reversed(path[:-1]), reversed(tokens[: len(path) - 1]), strict=False
        ):
            if not node.is_empty:
                break
            parent.drop(token)
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
                if node.only is not None:
                    if node.token == token or node.token == "*":
                        following.append(node.only)
                elif node.below is not None:
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
