"""The same attacks on roles that bind peer to peer, and on peers that stop in the middle."""

from __future__ import annotations

import contextlib
import random
import signal
import threading

import msgspec
import pytest
import zmq

from patterns.io.guard_kernel import available
from patterns.sync import Admin, Consumer, Producer, Publisher, Requester, Subscriber
from patterns.wire.errors import NotInThisDeployment
from patterns.wire.limits import CREDIT_BYTES
from tests.processes import Broker, until
from tests.sockets.flood import (
    ENDLESS_MULTIPART,
    ENDLESS_SHORT_FRAMES,
    ENDLESS_TINY_FRAMES,
    MIB,
    WHOLE_MESSAGES,
    Flood,
    frame,
    raw_peer,
)
from tests.sockets.hostile import Peer, half_open, hello_frames
from tests.sockets.places import serving
from tests.sockets.provocations import ONE

only_guarded = pytest.mark.skipif(not available, reason="the guard needs TCP_INFO")


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


def noise(count: int):
    chance = random.Random(count)
    for _ in range(count):
        yield [chance.randbytes(chance.randrange(60)) for _ in range(chance.randrange(1, 7))]


def test_a_bound_replier_answers_its_requester_whatever_others_send(context):
    with serving("tcp://127.0.0.1:0", "echo", lambda body: body) as replier, Requester(replier.address) as requester:
        assert requester.request("echo", 1, timeout_s=10) == 1
        with Peer(context, replier.address) as vandal, Peer(context, replier.address) as greedy:
            vandal.send("Q", {"id": 1, "service": "echo", "timeout_ms": 1}, b"", b"\x91\x01")
            vandal.receive("N")
            for frames in noise(2_000):
                vandal.socket.send_multipart(frames)
            assert vandal.receive("E")["number"] == 100
            greedy.hello("requester", credit=(1 << 50, 1 << 50))
            body = msgspec.msgpack.encode([b"x" * (MIB // 2)])
            for number in range(60):
                greedy.send("Q", {"id": number, "service": "echo", "timeout_ms": 9_999}, b"", body)
            assert requester.request("echo", 2, timeout_s=10) == 2
        port = int(replier.address.rpartition(":")[2])
        held = [half_open(port, sent) for sent in (0, 5, 30, 64)]
        for chunk in (ENDLESS_MULTIPART, WHOLE_MESSAGES):
            Flood(port, chunk, 2, bytes_max=60 * MIB, duration_s=2.0).run()
            assert requester.request("echo", 3, timeout_s=10) == 3
        for one in held:
            one.close()


@only_guarded
@pytest.mark.parametrize(
    ("chunk", "count", "role"),
    [
        pytest.param(ENDLESS_MULTIPART, 1, None, id="endless-multipart-1"),
        pytest.param(ENDLESS_MULTIPART, 20, None, id="endless-multipart-20"),
        pytest.param(ENDLESS_MULTIPART, 20, "requester", id="endless-in-a-session-20"),
    ],
)
def test_a_flood_at_a_bound_replier_is_cut_and_its_requester_loses_nothing(chunk, count, role):
    openings = [hello_frames(role) for _ in range(count)] if role else []
    with serving("tcp://127.0.0.1:0", "echo", lambda body: body) as replier, Requester(replier.address) as requester:
        assert requester.request("echo", 0, timeout_s=30) == 0
        port = int(replier.address.rpartition(":")[2])
        with Flood(port, chunk, count, bytes_max=4_000 * MIB, duration_s=60.0, openings=openings) as flood:
            until(lambda: requester.request("echo", 1, timeout_s=30) == 1 and len(flood.cut_after_s) == count)
        assert requester.request("echo", 2, timeout_s=30) == 2
        assert replier.cuts == {"beyond_credit" if role else "before_hello": count}
    assert not any(thread.name == "zbroker-guard" for thread in threading.enumerate())


def test_a_bound_replier_tells_what_it_has_refused(context):
    with serving("tcp://127.0.0.1:0", "echo", lambda body: body) as replier:
        assert (replier.refused, replier.cuts) == ({}, {})
        stranger = context.socket(zmq.DEALER)
        stranger.connect(replier.address)
        stranger.send_multipart([b"ZB1Q", b"\x80"])  # a request without an id
        with Peer(context, replier.address) as peer:
            peer.hello("requester")
            peer.send("Q", {"id": 1, "service": "other", "timeout_ms": 9_000}, b"", ONE)
            peer.receive("E", 60)
        until(lambda: replier.refused == {"PROTOCOL_ERROR.header": 1, "NO_REPLIER": 1})


@only_guarded
@pytest.mark.parametrize(
    ("chunk", "count"), [(ENDLESS_SHORT_FRAMES, 1), (ENDLESS_SHORT_FRAMES, 20), (ENDLESS_TINY_FRAMES, 2)]
)
def test_a_flood_at_a_bound_publisher_is_cut_and_its_subscriber_loses_nothing(chunk, count, caplog):
    with Publisher("tcp://127.0.0.1:0") as publisher, Subscriber(publisher.address, "a.>") as subscriber:
        subscriber.ready(30)
        port = int(publisher.address.rpartition(":")[2])
        number = 0
        with Flood(port, chunk, count, socket_type=b"SUB", bytes_max=4_000 * MIB, duration_s=60.0) as flood:
            while len(flood.cut_after_s) < count or number < 100:
                publisher.publish("a.b", number)
                assert subscriber.receive(30).body == number
                number += 1
        assert sum(publisher.cuts.values()) == count
        assert set(publisher.cuts) <= {"before_hello", "subscriptions"}  # too much of one, or of all of them together
        assert any("cut the connection of 127.0.0.1:" in record.getMessage() for record in caplog.records)
        assert (subscriber.lost, subscriber.interruptions) == (0, 0)
    assert not any(thread.name == "zbroker-guard" for thread in threading.enumerate())


@only_guarded
def test_who_subscribes_without_end_at_a_bound_publisher_is_cut_and_its_subscriber_loses_nothing(context, caplog):
    with Publisher("tcp://127.0.0.1:0") as publisher, Subscriber(publisher.address, "a.>") as subscriber:
        subscriber.ready(30)
        greedy = context.socket(zmq.SUB)
        greedy.sndhwm, greedy.rcvtimeo, greedy.reconnect_ivl = 0, 1_000, -1
        greedy.connect(publisher.address)
        number = 0
        while not publisher.cuts:
            for _ in range(200):  # of 250 bytes; an echo says that they are taken, so nothing is undelivered
                greedy.subscribe(b"%0250d" % number)
                number += 1
            greedy.subscribe(b"ZB1e%016d" % number)
            with contextlib.suppress(zmq.Again):
                greedy.recv_multipart()
            assert number < 20_000
        assert publisher.cuts == {"subscriptions": 1}
        assert number > 3_000
        assert any("which holds too many subscriptions" in record.getMessage() for record in caplog.records)
        publisher.publish("a.b", "still here")
        assert subscriber.receive(30).body == "still here"
        assert (subscriber.lost, subscriber.interruptions) == (0, 0)


@only_guarded
def test_who_subscribe_to_too_much_at_once_are_cut_together_and_a_subscriber_beside_them_loses_nothing(caplog):
    with Publisher("tcp://127.0.0.1:0") as publisher, Subscriber(publisher.address, "a.>") as subscriber:
        subscriber.ready(30)
        port = int(publisher.address.rpartition(":")[2])
        bursts = [b"".join(frame(b"\x01%d%0400d" % (peer, n), more=False) for n in range(2_000)) for peer in range(3)]
        peers = [raw_peer(port, b"SUB") for _ in bursts]
        for peer, burst in zip(peers, bursts, strict=True):  # each within what one may send, and hold
            with contextlib.suppress(OSError):
                peer.sendall(burst)
        until(lambda: publisher.cuts.get("subscriptions", 0) > 0)
        publisher.publish("a.b", "still here")
        assert subscriber.receive(30).body == "still here"
        assert (subscriber.lost, subscriber.interruptions) == (0, 0)
        for peer in peers:
            peer.close()


@only_guarded
def test_one_prefix_longer_than_any_topic_ends_its_connection_at_a_bound_publisher():
    with Publisher("tcp://127.0.0.1:0") as publisher, Subscriber(publisher.address, "a.>") as subscriber:
        subscriber.ready(30)
        with raw_peer(int(publisher.address.rpartition(":")[2]), b"SUB") as peer:
            peer.settimeout(30)
            peer.sendall(frame(b"\x01" + b"x" * 2_000, more=False))
            assert peer.recv(100) == b""
        publisher.publish("a.b", "still here")
        assert subscriber.receive(30).body == "still here"


@only_guarded
def test_a_forwarders_many_subscriptions_at_a_bound_publisher_are_no_flood(context):
    with Publisher("tcp://127.0.0.1:0") as publisher:
        forwarder = context.socket(zmq.XSUB)
        forwarder.sndhwm = 0
        forwarder.connect(publisher.address)
        for number in range(20_000):  # and all behind it come and go
            forwarder.send(b"\x01ZB1e%016d" % number)
        for number in range(20_000):
            forwarder.send(b"\x00ZB1e%016d" % number)
        forwarder.send(b"\x01ZB1e" + b"n" * 16)
        until(lambda: publisher._engine._listeners == {b"n" * 16})
        assert publisher.cuts == {}


def test_a_bound_replier_that_is_busy_cuts_nobody_within_its_credit(context):
    may_go, count = threading.Event(), CREDIT_BYTES // MIB
    with (
        serving("tcp://127.0.0.1:0", "slow", lambda body: may_go.wait(60) and b"done", codec="raw") as replier,
        Peer(context, replier.address) as peer,
    ):
        peer.hello("requester", credit=(1 << 20, 1 << 30), codec="raw")
        for number in range(count):
            header = {"id": number, "service": "slow", "timeout_ms": 99_999, "codec": "raw"}
            peer.send("Q", header, b"", b"x" * MIB)
        peer.send("I", {"token": 5})
        peer.receive("i", 60)
        may_go.set()
        assert sorted(peer.receive("q", 60).get("id", 0) for _ in range(count)) == list(range(count))


def test_a_bound_publisher_serves_its_subscriber_whatever_others_subscribe_to(context):
    with Publisher("tcp://127.0.0.1:0") as publisher, Subscriber(publisher.address, "a.>") as subscriber:
        subscriber.ready(10)
        stranger = context.socket(zmq.XSUB)
        stranger.connect(publisher.address)
        for frames in noise(3_000):
            stranger.send(frames[0])
        stranger.send(b"\x01ZB1e" + b"n" * 400)
        with raw_peer(int(publisher.address.rpartition(":")[2]), b"SUB") as raw:
            raw.sendall(random.Random(1).randbytes(5_000))
        for number in range(500):
            publisher.publish("a.b", number)
        heard = [subscriber.receive(10) for _ in range(500)]
        assert [message.body for message in heard if message is not None] == list(range(500))
        assert subscriber.lost == 0


def test_a_bound_subscriber_hears_its_publisher_whatever_others_publish(context):
    with Subscriber("@tcp://127.0.0.1:0", "a.>") as subscriber:
        address = subscriber.address
        stranger = context.socket(zmq.PUB)
        stranger.sndhwm = 0
        stranger.connect(address)
        with Publisher(">" + address) as publisher:
            publisher.wait_for_subscribers(1, timeout_s=10)
            for prefix in (b"ZB1P", b"ZB1P\x00", b"ZB1P\x01", b"ZB1P\x03", b"ZB1e"):  # 3 is the channel of "a"
                for frames in noise(300):
                    stranger.send_multipart([prefix, *frames])
            for number in range(200):
                publisher.publish("a.b", number)
            heard = [subscriber.receive(10) for _ in range(200)]
            assert [message.body for message in heard if message is not None] == list(range(200))
        until(lambda: subscriber.receive(0) is None and subscriber.unreadable > 0)


def test_durable_roles_and_an_admin_need_a_broker():
    for make in (lambda: Producer("tcp://127.0.0.1:1", "s"), lambda: Consumer("tcp://127.0.0.1:1", "s")):
        with pytest.raises(NotInThisDeployment):
            make()
    with pytest.raises(NotInThisDeployment):
        Admin("tcp://127.0.0.1:1")


def test_a_broker_stopped_for_longer_than_a_heartbeat_goes_on_where_it_was(tmp_path):
    with (
        Broker(tmp_path) as broker,
        Producer(broker.url, "s", timeout_s=20) as producer,
        Consumer(broker.url, "s", group="g") as consumer,
    ):
        assert producer.send(0).offset == 0
        broker.pause()
        posted = [producer.post(number) for number in range(1, 50)]
        threading.Event().wait(2.5)  # what is measured is that this much time passes
        broker.resume()
        assert [one.result(20).offset for one in posted] == list(range(1, 50))
        seen = []
        while len(seen) < 50:
            delivery = consumer.receive(20)
            assert delivery is not None
            delivery.ack()
            seen.append(delivery.offset)
        assert sorted(set(seen)) == list(range(50))
        broker.process.signal(signal.SIGTERM)
        assert broker.process.wait() == 0
