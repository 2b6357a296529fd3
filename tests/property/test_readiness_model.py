"""Who is asked: the heaps against a look at every replier, whatever is offered, asked, answered and granted, in any order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from patterns.wire.messages import Cancel, Credit, Request, Withdraw
from tests.unit.core.serving import Bench

REPLIERS = st.integers(0, 2)
SERVICES = st.sampled_from("ab")
steps = st.one_of(
    st.tuples(st.just("offer"), REPLIERS, SERVICES),
    st.tuples(st.just("withdraw"), REPLIERS, SERVICES),
    st.tuples(st.just("request"), SERVICES),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("reply"), REPLIERS),
    st.tuples(st.just("grant"), REPLIERS, st.integers(1, 3)),
)


class World:
    """Three repliers and one requester at an engine; what each replier has been given is read after each step."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.repliers = [self.bench.client("replier", messages=number) for number in range(3)]
        self.requester = self.bench.client("requester")
        self.total = [0, 1, 2]
        self.left = [0, 1, 2]
        self.given: list[list[int]] = [[], [], []]
        self.offers: list[set[str]] = [set(), set(), set()]
        self.asked = 0

    def offer(self, number: int, service: str) -> None:
        self.repliers[number].offer(service)
        self.offers[number].add(service)

    def withdraw(self, number: int, service: str) -> None:
        self.repliers[number].send(Withdraw(service))
        self.offers[number].discard(service)

    def request(self, service: str) -> None:
        """It goes at once to one of those with the most credit left; nowhere only if nobody has any."""
        best = max((self.left[one] for one in range(3) if service in self.offers[one]), default=0)
        before = list(self.left)
        self.asked += 1
        self.requester.request(self.asked, service=service)
        self.look()
        took = [number for number in range(3) if self.left[number] < before[number]]
        assert [before[number] for number in took] == ([best] if best > 0 else [])

    def cancel(self, back: int) -> None:
        self.requester.send(Cancel(self.asked - back))

    def reply(self, number: int) -> None:
        if self.given[number]:
            self.left[number] += 1
            self.repliers[number].reply(self.given[number].pop())

    def grant(self, number: int, more: int) -> None:
        """CREDIT only widens the window that replies renew, so what was renewed counts."""
        session = next(s for s in self.bench.engine._sessions if s.nonce == self.repliers[number].nonce)
        before = session.out.messages_max
        self.repliers[number].send(Credit(before + more, 1 << 20))
        self.left[number] += more

    def look(self) -> None:
        for number, replier in enumerate(self.repliers):
            for asked in replier.take(Request):
                assert asked.service in self.offers[number]
                self.left[number] -= 1
                self.given[number].append(asked.id)

    def nothing_waits_beside_a_free_replier(self) -> None:
        for service in self.bench.engine._services._services.values():
            is_free = any(self.left[one] > 0 for one in range(3) if service.name in self.offers[one])
            assert not (service.waiting and is_free)


@given(st.lists(steps, max_size=80))
def test_the_readiest_is_asked_and_nothing_waits_beside_a_free_replier(taken):
    world = World()
    for kind, *arguments in taken:
        getattr(world, kind)(*arguments)
        world.look()
        world.nothing_waits_beside_a_free_replier()
