import errno
from random import Random

import pytest

from zbroker.testing.network import CONNECTED, DISCONNECTED, UNREACHABLE, Dealer, Network
from zbroker.testing.scheduler import Scheduler

PLACE = "tcp://broker:7700"
SECOND = 1_000_000


@pytest.fixture
def network():
    return Network(Scheduler(0), Random(1))


def nobody():
    pass


def connected(network):
    router = network.bind(PLACE, nobody)
    dealer = Dealer(network, PLACE, nobody)
    network.scheduler.run(network.scheduler.now + 10_000)
    assert dealer.notices.popleft() == CONNECTED
    return dealer, router


def numbers(messages):
    return [int(message[1][0]) for message in messages]


def test_messages_arrive_in_order_and_answers_find_the_way_back(network):
    dealer, router = connected(network)
    for number in range(50):
        assert dealer.send([b"%d" % number])
    network.scheduler.run(SECOND)
    assert numbers(router.inbox) == list(range(50))
    assert router.send(router.inbox[0][0], [b"answer"]) is None
    network.scheduler.run(2 * SECOND)
    assert list(dealer.inbox) == [[b"answer"]]


def test_nothing_is_sent_without_a_connection_and_nobody_there_is_told(network):
    dealer = Dealer(network, PLACE, nobody)
    assert not dealer.send([b"lost"])
    network.scheduler.run(10_000)
    assert list(dealer.notices) == [UNREACHABLE]
    network.bind(PLACE, nobody)
    network.scheduler.run(SECOND)
    assert dealer.notices[-1] == CONNECTED


@pytest.mark.parametrize("seed", range(20))
def test_a_cut_loses_a_suffix_and_the_new_connection_has_another_routing_id(seed):
    network = Network(Scheduler(0), Random(seed))
    dealer, router = connected(network)
    for number in range(20):
        dealer.send([b"%d" % number])
    network.scheduler.run(network.scheduler.now + 200)
    (connection,) = network.connections
    network.cut(connection, Random(seed))
    network.scheduler.run(2 * SECOND)
    arrived = numbers(router.inbox)
    assert arrived == list(range(len(arrived)))
    assert list(dealer.notices) == [DISCONNECTED, CONNECTED]
    assert list(router.gone) == [connection.routing_id]
    dealer.send([b"99"])
    network.scheduler.run(3 * SECOND)
    assert router.inbox[-1][0] != connection.routing_id


def test_a_connection_known_to_be_gone_is_unreachable_and_a_half_open_one_takes_messages_and_loses_them(network):
    dealer, router = connected(network)
    (connection,) = network.connections
    network.cut(connection, Random(1), tell_dealer=False, tell_router=False)
    assert dealer.send([b"1"])
    assert router.send(connection.routing_id, [b"2"]) is None
    network.scheduler.run(SECOND)
    assert not router.inbox
    assert not dealer.inbox
    dealer.close()
    assert router.send(b"\0none", [b"3"]) == errno.EHOSTUNREACH


def test_routing_ids_repeat_over_the_lives_of_a_router(network):
    _, router = connected(network)
    first = list(router.connections)
    router.close(Random(1))
    _, again = connected(network)
    assert list(again.connections)[:1] == first


def test_a_swap_sends_to_a_router_that_knows_nobody_before_anybody_hears_of_it(network):
    dealer, router = connected(network)
    (connection,) = network.connections
    network.swap(connection, Random(1), SECOND)
    assert dealer.send([b"1"])
    network.scheduler.run(network.scheduler.now + SECOND // 2)
    assert router.inbox[-1][0] != connection.routing_id
    assert not dealer.notices
    network.scheduler.run(3 * SECOND)
    assert list(dealer.notices) == [DISCONNECTED, CONNECTED]
