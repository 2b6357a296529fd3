"""Plain subscribers' prefixes against what libzmq's trie holds: whoever is honest is heard, whatever comes late and whoever lies."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.core.serving import Bench
from zbroker.core.effects import PLAIN_PUBLISHERS, PLAIN_SUBSCRIBERS
from zbroker.core.prefixes import Prefixes

LIAR = b"99"
FDS = (b"20", b"21")
TOPICS = ("a", "b")
prefixes = st.sampled_from(TOPICS).map(str.encode)
steps = st.one_of(
    st.tuples(st.just("connect"), st.integers(0, 1)),
    st.tuples(st.just("subscribe"), st.integers(0, 1), prefixes),
    st.tuples(st.just("cancel"), st.integers(0, 1), prefixes),
    st.tuples(st.just("end"), st.integers(0, 1)),
    st.tuples(st.just("libzmq ends"), st.integers(0, 1)),
    st.tuples(
        st.just("news"),
    ),
    st.tuples(st.just("lie"), st.booleans(), prefixes),
    st.tuples(st.just("wait"), st.sampled_from([1_000, 10_000_000])),
)


class World:
    """Connections as libzmq has them; reports to the book at once, ends and news of connections whenever a step says so."""

    def __init__(self) -> None:
        self.book, self.now = Prefixes(), 1
        self.alive: list[tuple[bytes, set[bytes]]] = []
        self.ending: list[set[bytes]] = []
        self.news: list[tuple[bool, bytes]] = []

    def step(self, kind: str, *arguments) -> None:
        getattr(self, kind.replace(" ", "_"))(*arguments)

    def connect(self, number: int) -> None:
        if all(fd != FDS[number] for fd, _ in self.alive):
            self.alive.append((FDS[number], set()))
            self.news.append((True, FDS[number]))

    def subscribe(self, place: int, prefix: bytes) -> None:
        if place < len(self.alive) and prefix not in self.alive[place][1]:
            self.alive[place][1].add(prefix)
            self.book.subscribe(self.alive[place][0], prefix, self.now)

    def cancel(self, place: int, prefix: bytes) -> None:
        if place < len(self.alive) and prefix in self.alive[place][1]:
            self.alive[place][1].discard(prefix)
            self.book.cancel(self.alive[place][0], prefix, self.now)

    def end(self, place: int) -> None:
        if place < len(self.alive):
            fd, held = self.alive.pop(place)
            self.ending.append(held)
            self.news.append((False, fd))

    def libzmq_ends(self, place: int) -> None:
        if place < len(self.ending):
            for prefix in self.ending.pop(place):
                self.book.cancel(b"", prefix, self.now)

    def hear_news(self) -> None:
        for is_there, fd in self.news:
            (self.book.came if is_there else self.book.went)(fd, self.now)
        self.news.clear()

    def lie(self, subscribes: bool, prefix: bytes) -> None:
        (self.book.subscribe if subscribes else self.book.cancel)(LIAR, prefix, self.now)

    def wait(self, us: int) -> None:
        while us > 1_000 and self.ending:  # in so long a time all that was to be reported is
            self.libzmq_ends(0)
        self.hear_news()
        self.now += us


@settings(max_examples=500, deadline=None)
@given(st.lists(steps, max_size=40))
def test_whoever_listens_is_heard(script):
    world = World()
    for kind, *arguments in script:
        world.step("hear news" if kind == "news" else kind, *arguments)
        for _, held in world.alive:
            assert all(world.book.hears(prefix.decode()) for prefix in held), (kind, arguments)


@settings(max_examples=200, deadline=None)
@given(st.lists(steps.filter(lambda step: step[0] != "lie"), max_size=40))
def test_without_liars_and_with_news_in_time_nothing_is_left_over(script):
    world = World()
    for kind, *arguments in script:
        if kind in ("end", "connect"):
            world.wait(10_000_000)  # no number is reused before its end is known
        world.step("hear news" if kind == "news" else kind, *arguments)
        if kind in ("end", "connect"):
            world.wait(10_000_000)
    while world.alive:
        world.end(0)
    world.wait(10_000_000)
    assert not world.book


frames = st.lists(st.binary(max_size=12) | prefixes.map(lambda prefix: b"\1" + prefix), max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([PLAIN_PUBLISHERS, PLAIN_SUBSCRIBERS]), frames), max_size=12))
def test_arbitrary_frames_at_either_port_never_raise(script):
    bench = Bench()
    for link, message in script:
        bench.engine.receive(link, b"20", message, bench.now)
    bench.settle()
