from __future__ import annotations

import pytest
import zmq

from patterns.io import sockets, turn


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def router(context):
    router = sockets.bare_router(context)
    sockets.bind(router, "inproc://turn")
    return router


@pytest.fixture
def dealer(context, router):
    dealer, _ = sockets.make_dealer(context, "inproc://turn")
    return dealer


FRAMES = [b"ZB1Q", b"header", b"", b"payload" * 20_000]


def test_a_message_arrives_frame_by_frame_as_it_was_sent(router, dealer):
    assert turn.send(dealer, FRAMES)
    routing_id, frames, fd = turn.receive_routed(router)
    assert (frames, fd) == (FRAMES, turn.FD_UNKNOWN)
    assert turn.send_routed(router, routing_id, FRAMES) is None
    assert turn.receive(dealer) == FRAMES


def test_a_large_payload_may_be_lent_and_leaves_as_it_came(router, dealer):
    turn.send(dealer, FRAMES)
    routing_id, frames, _ = turn.receive_routed(router, lent=b"ZB1Q")
    assert type(frames[3]) is memoryview
    assert frames == FRAMES
    for _ in range(2):  # to two subscribers, say
        assert turn.send_routed(router, routing_id, frames) is None
    assert turn.send_routed(router, routing_id, [*frames[:3], frames[3][7:]]) is None  # part of it: a copy of that part
    assert turn.receive_many(dealer, 3) == [FRAMES, FRAMES, [*FRAMES[:3], FRAMES[3][7:]]]


@pytest.mark.parametrize(
    "frames", [[b"ZB1Q", b"header", b"", b"small"], [b"ZB1p", *FRAMES[1:]], FRAMES[1:], [b"x" * 9_000]]
)
def test_what_is_small_or_of_another_kind_or_shape_is_never_lent(router, dealer, frames):
    turn.send(dealer, frames)
    [(_, taken, _)] = turn.receive_routed_many(router, 9, lent=b"ZB1Q")
    assert [type(frame) for frame in taken] == [bytes] * len(frames)
    assert taken == frames


def test_what_several_are_sent_is_shared_and_leaves_as_it_was(router, dealer):
    turn.send(dealer, FRAMES)
    routing_id, _, _ = turn.receive_routed(router)
    many, once, small = [*FRAMES], [*FRAMES], [b"ZB1P", b"small"]
    turn.share([many, once, small, many, small, many])
    assert [type(frames[-1]) for frames in (many, once, small)] == [memoryview, bytes, bytes]
    for frames in (many, many, once, small):
        assert turn.send_routed(router, routing_id, frames) is None
    assert turn.receive_many(dealer, 4) == [FRAMES, FRAMES, FRAMES, [b"ZB1P", b"small"]]


def test_nothing_there_is_none_and_no_exception(router, dealer):
    assert turn.receive(dealer) is None
    assert turn.receive_routed(router) is None
    assert turn.receive_many(dealer, 10) == []
    assert not turn.is_readable(dealer)


@pytest.mark.parametrize("count", [1, 3, 4, 50])
def test_a_burst_is_taken_in_order_up_to_the_limit(router, dealer, count):
    for number in range(count):
        turn.send(dealer, [b"%d" % number])
    taken = turn.receive_routed_many(router, 40) + turn.receive_routed_many(router, 40)
    assert [frames for _, frames, _ in taken] == [[b"%d" % number] for number in range(count)]
    for number in range(count):
        turn.send_routed(router, taken[0][0], [b"%d" % number])
    assert turn.receive_many(dealer, 2) == [[b"%d" % number] for number in range(min(count, 2))]


def test_a_connection_that_is_none_is_told_by_value(router):
    assert turn.send_routed(router, b"nobody", FRAMES) == zmq.EHOSTUNREACH


def test_a_dealer_without_connection_takes_nothing(context):
    dealer, _ = sockets.make_dealer(context, "tcp://127.0.0.1:1")
    assert turn.send(dealer, FRAMES) is False
