from __future__ import annotations

import pytest
import zmq

from patterns.io import sockets, turn
from patterns.wire.errors import BadAddress, Unavailable


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


def next_event(pair):
    assert pair.poll(5_000)
    return sockets.read_event(pair)


def test_port_0_is_filled_in_and_a_second_bind_is_unavailable(context):
    router = sockets.bare_router(context)
    endpoint = sockets.bind(router, "tcp://127.0.0.1:0")
    assert not endpoint.endswith(":0")
    with pytest.raises(Unavailable, match="in use"):
        sockets.make_router(context, endpoint)


@pytest.mark.parametrize("kind", ["tcp", "ipc"])
def test_an_address_is_free_when_who_had_it_has_closed(context, kind, tmp_path):
    endpoint = sockets.bind(
        first := sockets.bare_router(context), f"{kind}://{'127.0.0.1:0' if kind == 'tcp' else tmp_path / 's'}"
    )
    first.close(0)
    for _ in range(50):  # libzmq closes listeners some time later: about every second one met the last
        sockets.make_router(context, endpoint).close(0)


@pytest.mark.parametrize("endpoint", ["tcp://nonsense", "xyz://a"])
def test_what_is_no_endpoint_is_a_bad_address(context, endpoint):
    with pytest.raises(BadAddress):
        sockets.make_router(context, endpoint)
    with pytest.raises(BadAddress):
        sockets.make_dealer(context, endpoint)


def test_the_monitor_tells_when_the_handshake_is_done_and_when_the_other_end_goes(context):
    router = sockets.bare_router(context)
    endpoint = sockets.bind(router, "tcp://127.0.0.1:0")
    dealer, pair = sockets.make_dealer(context, endpoint)
    assert next_event(pair).event is sockets.Event.CONNECTED
    sockets.close(router)
    assert next_event(pair).event is sockets.Event.DISCONNECTED
    sockets.close(dealer, pair)


def test_the_fd_of_a_message_is_the_one_that_the_monitor_names(context):
    router = sockets.bare_router(context)
    watch = sockets.monitor(router)
    dealer, pair = sockets.make_dealer(context, sockets.bind(router, "tcp://127.0.0.1:0"))
    accepted = next_event(watch)
    next_event(pair)
    turn.send(dealer, [b"x"])
    assert router.poll(5_000)
    assert turn.receive_routed(router)[2] == accepted.value
    sockets.close(dealer, pair)
    assert next_event(watch).event is sockets.Event.CONNECTED
    gone = next_event(watch)
    assert (gone.event, gone.value) == (sockets.Event.DISCONNECTED, accepted.value)


def test_a_sub_hears_an_xpub(context):
    xpub = sockets.make_xpub(context, "tcp://127.0.0.1:0")
    sub, pair = sockets.make_sub(context, xpub.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode())
    sub.subscribe(b"ZB1P")
    assert xpub.poll(5_000)
    assert turn.receive(xpub) == [b"\x01ZB1P"]
    turn.send(xpub, [b"ZB1P\x07", b"h"])
    assert sub.poll(5_000)
    assert turn.receive(sub) == [b"ZB1P\x07", b"h"]
    sockets.close(sub, pair, xpub)
