"""Ports 7701 and 7702: programs that have nothing but ZeroMQ, with a real broker between them and ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from patterns import aio
from patterns.io.guard_kernel import available
from patterns.sync import Admin, Publisher, Requester, Subscriber
from tests.processes import Broker, until
from tests.sockets.flood import ENDLESS_MULTIPART, GREETING, MIB, Flood, frame, raw_peer, ready
from tests.sockets.places import serving

BOTH = ("--xsub", "tcp://127.0.0.1:0", "--xpub", "tcp://127.0.0.1:0")
WAIT_MS = 30_000
guarded = pytest.mark.skipif(not available, reason="the guard needs TCP_INFO")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("plain"), *BOTH, durable=False) as broker:
        yield broker


@pytest.fixture
def shared(running: Broker) -> Broker:
    """One broker for tests that leave nothing behind; it takes a moment to notice that their sockets are gone."""
    until(lambda: status(running)["plain"]["prefixes"] == 0)
    return running


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    found: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield found
    found.destroy(linger=0)


def status(broker: Broker) -> dict[str, Any]:
    with Admin(broker.url, timeout_s=30) as admin:
        return admin.status()


def counter(broker: Broker, name: str) -> int:
    return status(broker)["counters"].get(name, 0)


def publisher(context: zmq.Context, broker: Broker) -> zmq.Socket:
    """A PUB that the broker hears: what it sends before the broker's subscription has come, libzmq drops in silence."""
    socket = context.socket(zmq.PUB)
    socket.sndhwm = 0
    socket.connect(broker.addresses["xsub"])
    before = counter(broker, "plain_published")

    def is_heard() -> bool:
        socket.send_multipart([b"nobody.listens", b""])
        return counter(broker, "plain_published") > before

    until(is_heard)
    return socket


def subscriber(context: zmq.Context, broker: Broker, *prefixes: bytes) -> zmq.Socket:
    """A SUB whose prefixes the broker knows; nobody else has them."""
    socket = context.socket(zmq.SUB)
    socket.rcvhwm = 0
    before = status(broker)["plain"]["prefixes"]
    socket.connect(broker.addresses["xpub"])
    for prefix in prefixes:
        socket.subscribe(prefix)
    until(lambda: status(broker)["plain"]["prefixes"] == before + len(prefixes))
    return socket


def heard(socket: zmq.Socket, count: int) -> list[list[bytes]]:
    found = []
    for _ in range(count):
        assert socket.poll(WAIT_MS), f"{len(found)} of {count} came"
        found.append(socket.recv_multipart())
    return found


def test_a_plain_publisher_reaches_a_subscriber_in_order_and_nothing_is_lost(context, shared):
    with Subscriber(shared.url, "t1.*.eu") as ours:
        ours.ready(30)
        plain = publisher(context, shared)
        for number in range(2_000):
            plain.send_multipart([b"t1.orders.eu", b"%d" % number])
            plain.send_multipart([b"t1.orders.us", b"x"])
        found = [ours.receive(30) for _ in range(2_000)]
        assert [message.body for message in found] == [b"%d" % number for number in range(2_000)]
        assert {message.topic for message in found} == {"t1.orders.eu"}
        assert (ours.lost, ours.interruptions) == (0, 0)


def test_a_plain_publisher_reaches_an_awaited_subscriber(context, shared):
    async def main() -> bytes:
        async with aio.Subscriber(shared.url, "t2.>") as ours:
            await ours.ready(30)
            plain = await asyncio.to_thread(publisher, context, shared)
            plain.send_multipart([b"t2.a", b"hello"])
            message = await ours.receive(30)
            assert message is not None
            return message.body

    assert asyncio.run(main()) == b"hello"


def test_a_plain_publisher_reaches_zbroker_sub(context, shared):
    command = [sys.executable, "-m", "zbroker", "sub", "t3.>", "--count", "1", "--timeout", "60", "--json"]
    with subprocess.Popen([*command, "--url", shared.url], stdout=subprocess.PIPE, text=True) as listening:
        until(lambda: "t3.>" in status(shared)["subscriptions"])
        publisher(context, shared).send_multipart([b"t3.a", b"hello"])
        said = json.loads(listening.communicate(timeout=60)[0])
    assert (said["topic"], said["body_base64"]) == ("t3.a", "aGVsbG8=")


@pytest.mark.parametrize(
    ("codec", "body", "bytes_"),
    [("json", {"a": [1]}, b'{"a":[1]}'), ("msgpack", {"a": 1}, b"\x81\xa1a\x01"), ("raw", b"\0\1", b"\0\1")],
)
def test_a_plain_subscriber_hears_our_publishers_in_their_codec_by_prefixes_of_bytes(
    context, shared, codec, body, bytes_
):
    topic = f"t4{codec}"
    plain = subscriber(context, shared, f"{topic}.ord".encode())
    with Publisher(shared.url, codec=codec) as ours:
        for end in ("zebra", "orders", "ordinary.x", "or"):
            ours.publish(f"{topic}.{end}", body)
        ours.publish(f"{topic}.ord", body)
        ours.flush()
        wanted = [f"{topic}.{end}".encode() for end in ("orders", "ordinary.x", "ord")]
        assert heard(plain, 3) == [[name, bytes_] for name in wanted]


def test_a_batch_of_many_messages_is_taken_apart_in_order(context, shared):
    plain = subscriber(context, shared, b"t5.")
    with Publisher(shared.url, codec="json") as ours:
        for number in range(5_000):
            ours.publish(f"t5.{number % 3}", number)
        ours.flush()
        assert heard(plain, 5_000) == [[b"t5.%d" % (number % 3), b"%d" % number] for number in range(5_000)]


def test_plain_programs_hear_one_another(context, shared):
    listening = subscriber(context, shared, b"t6.a", b"t6.b")
    sending = publisher(context, shared)
    for topic in (b"t6.a", b"t6.c", b"t6.bc"):
        sending.send_multipart([topic, b"x"])
    assert heard(listening, 2) == [[b"t6.a", b"x"], [b"t6.bc", b"x"]]


def test_what_is_no_message_of_ours_is_counted_by_kind_and_dropped(context, shared):
    sending = publisher(context, shared)
    kinds = ("shape", "topic", "size")
    before = {kind: counter(shared, f"plain_dropped.{kind}") for kind in kinds}
    with Subscriber(shared.url, "t7.>") as ours:
        ours.ready(30)
        for frames in (
            [b"t7.a"],
            [b"t7.a", b"x", b"x"],
            [b"", b"x"],
            [b"t7 a", b"x"],
            [b"\xff", b"x"],
            [b"t7.a", b"x" * (1 << 20) + b"x"],
        ):
            sending.send_multipart(frames)
        sending.send_multipart([b"t7.a", b"good"])
        assert ours.receive(30).body == b"good"
    after = {kind: counter(shared, f"plain_dropped.{kind}") - before[kind] for kind in kinds}
    assert after == {"shape": 2, "topic": 3, "size": 1}


def test_a_subscription_ends_with_its_socket_and_by_unsubscribe(context, shared):
    before = status(shared)["plain"]["prefixes"]
    listening = subscriber(context, shared, b"t8.a", b"t8.b")
    listening.unsubscribe(b"t8.a")
    until(lambda: status(shared)["plain"]["prefixes"] == before + 1)
    listening.close()
    until(lambda: status(shared)["plain"]["prefixes"] == before)


def test_status_shows_how_many_are_connected(context, shared):
    before = status(shared)["plain"]
    listening, sending = subscriber(context, shared, b"t9"), publisher(context, shared)

    def more(name: str) -> int:
        return status(shared)["plain"][name] - before[name]

    until(lambda: more("subscribers") >= 1 and more("publishers") >= 1)
    for end in (listening, sending):
        end.close()
    until(lambda: more("subscribers") <= 0 and more("publishers") <= 0)


def test_a_false_cancellation_silences_nobody(context, shared):
    honest = subscriber(context, shared, b"t10")
    before = counter(shared, "plain_ignored")
    port = int(shared.addresses["xpub"].rpartition(":")[2])
    with raw_peer(port, b"SUB") as liar:
        liar.sendall(frame(b"\0t10", more=False) * 3)
        until(lambda: counter(shared, "plain_ignored") == before + 3)
        with Publisher(shared.url, codec="raw") as ours:
            ours.publish("t10", b"x")
            assert heard(honest, 1) == [[b"t10", b"x"]]


def test_bodies_that_are_labelled_are_checked_and_translated(context, tmp_path, monkeypatch):
    folder = tmp_path / "zbroker.toml"
    folder.write_text('plain_codec = "json"\n')
    with Broker(tmp_path, *BOTH, "--config", str(folder), durable=False) as broker:
        with Subscriber(broker.url, "a") as ours:
            ours.ready(30)
            sending = publisher_of_json(context, broker)
            for body in (b"{", b"1,2", b'{"a": [1.5, null]}'):
                sending.send_multipart([b"a", body])
            assert ours.receive(30).body == {"a": [1.5, None]}
        assert counter(broker, "plain_dropped.body") == 2


def publisher_of_json(context: zmq.Context, broker: Broker) -> zmq.Socket:
    socket = context.socket(zmq.PUB)
    socket.connect(broker.addresses["xsub"])

    def is_heard() -> bool:
        socket.send_multipart([b"nobody.listens", b"0"])
        return counter(broker, "plain_published") > 0

    until(is_heard)
    return socket


def test_without_flags_beside_another_port_both_are_closed_and_brokers_do_not_collide(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with Broker(tmp_path / "one", durable=False) as one, Broker(tmp_path / "other", durable=False) as other:
        for broker in (one, other):
            assert (broker.addresses["xsub"], broker.addresses["xpub"]) == (None, None)


@pytest.mark.parametrize("door", ["xsub", "xpub"])
def test_a_port_in_use_is_unavailable_and_the_text_names_the_setting(shared, door):
    command = [sys.executable, "-m", "zbroker", "run", "--no-data", "--bind", "tcp://127.0.0.1:0"]
    ran = subprocess.run(
        [*command, f"--{door}", shared.addresses[door]], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 69
    assert f"--{door}" in ran.stderr


def test_a_subscriber_that_never_reads_holds_up_nobody(context, shared):
    port = int(shared.addresses["xpub"].rpartition(":")[2])
    with (
        raw_peer(port, b"SUB") as stalled,
        Publisher(shared.url, codec="raw") as ours,
        Subscriber(shared.url, "t11", codec="raw") as native,
    ):
        stalled.sendall(frame(b"\1t11", more=False))
        until(lambda: status(shared)["plain"]["prefixes"] == 1)
        reading = subscriber(context, shared, b"t1")
        native.ready(30)
        for begin in range(0, 300, 20):  # 19 MiB in all: more than the kernel holds for the stalled one
            bodies = [b"%d" % number + b"x" * 65_536 for number in range(begin, begin + 20)]
            for body in bodies:
                ours.publish("t11", body)
            ours.flush()
            assert heard(reading, 20) == [[b"t11", body] for body in bodies]
            assert [native.receive(30).body for _ in bodies] == bodies
        assert native.lost == 0


@guarded
def test_over_the_memory_budget_a_subscriber_that_never_reads_is_cut_and_one_that_reads_is_not(context, tmp_path):
    body = b"x" * 262_144
    settings = tmp_path / "zbroker.toml"
    settings.write_text(f"memory_bytes = {160 << 20}\n")
    with Broker(tmp_path, *BOTH, "--config", str(settings), durable=False) as broker:
        port = int(broker.addresses["xpub"].rpartition(":")[2])
        with raw_peer(port, b"SUB") as stalled, Publisher(broker.url, codec="raw") as ours:
            stalled.sendall(frame(b"\1big", more=False))
            until(lambda: status(broker)["plain"]["prefixes"] == 1)
            reading = subscriber(context, broker, b"bi")

            def is_cut() -> bool:
                for _ in range(8):
                    ours.publish("big", body)
                ours.flush()
                assert heard(reading, 8) == [[b"big", body]] * 8
                return status(broker)["guard"]["cuts"]["memory"] >= 1

            until(is_cut)
        until(lambda: status(broker)["plain"]["subscribers"] == 1)


@guarded
@pytest.mark.parametrize(
    ("door", "kind", "chunk"),
    [
        ("xsub", b"PUB", ENDLESS_MULTIPART),
        ("xpub", b"SUB", frame(b"\1" + b"x" * 200, more=True) * 300),
        ("xpub", b"SUB", b"".join(b"\0\7\1%06d" % number for number in range(1_000_000))),  # never twice before the cut
    ],
    ids=["xsub endless", "xpub endless", "xpub a million subscriptions"],
)
def test_a_flood_is_cut_and_others_do_not_notice(tmp_path, door, kind, chunk):
    with Broker(tmp_path, *BOTH, durable=False) as broker:
        port = int(broker.addresses[door].rpartition(":")[2])
        with (
            serving(broker.url, "echo", lambda body: body),
            Requester(broker.url) as requester,
            Flood(port, chunk, socket_type=kind, duration_s=30) as flood,
        ):
            until(lambda: len(flood.cut_after_s) == 1)
            assert requester.request("echo", 1, timeout_s=30) == 1
        until(lambda: sum(status(broker)["guard"]["cuts"].values()) == 1)
        until(lambda: status(broker)["plain"]["prefixes"] == 0, 90)  # libzmq walks all of them at their peer's end
        assert broker.terminate() == 0


@guarded
def test_a_storm_of_short_connections_is_held_back_and_who_listens_hears(context, tmp_path):
    """2,000 a second came in before, each with 200 subscriptions that outlived it: 40 MiB a second, and minutes to work them off."""
    settings = tmp_path / "zbroker.toml"
    settings.write_text(f"memory_bytes = {128 * MIB}\n")
    subscriptions = b"".join(b"\0\x09\1%08d" % number for number in range(0, 99_999_999, 500_003))
    with Broker(tmp_path, *BOTH, "--config", str(settings), durable=False) as broker:
        port = int(broker.addresses["xpub"].rpartition(":")[2])
        early = subscriber(context, broker, b"a")
        with (
            storm(port, GREETING + ready(b"SUB") + subscriptions),
            Subscriber(broker.url, "a", codec="raw") as native,
            Publisher(broker.url, codec="raw") as ours,
        ):
            native.ready(30)
            until(lambda: status(broker)["guard"]["closings"] >= 3)
            for number in range(100):
                ours.publish("a", b"%d" % number)
            ours.flush()
            assert [native.receive(30).body for _ in range(100)] == [b"%d" % number for number in range(100)]
            assert native.lost == 0
            assert heard(early, 100)[-1] == [b"a", b"99"]
        late = context.socket(zmq.SUB)
        late.connect(broker.addresses["xpub"])
        late.subscribe(b"b")
        with Publisher(broker.url, codec="raw") as ours:
            until(lambda: is_heard_by(late, ours))
        found = status(broker)["guard"]
        assert found["rss_bytes_peak"] < 128 * MIB
        until(lambda: not any("plain subscribers" in text for text in status(broker)["warnings"]))


def is_heard_by(listening: zmq.Socket, ours: Publisher) -> bool:
    ours.publish("b", b"x")
    ours.flush()
    return bool(listening.poll(50))


@contextlib.contextmanager
def storm(port: int, said: bytes) -> Iterator[None]:
    """From eight threads: connect, say it, leave; until the end of the block."""
    is_over = threading.Event()

    def come_and_go() -> None:
        while not is_over.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2) as peer:
                peer.sendall(said)
                peer.shutdown(socket.SHUT_WR)

    threads = [threading.Thread(target=come_and_go, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join(30)


def test_a_prefix_of_a_megabyte_ends_its_connection_and_is_never_held(shared):
    port = int(shared.addresses["xpub"].rpartition(":")[2])
    before = status(shared)["plain"]["prefixes"]
    with raw_peer(port, b"SUB") as peer, contextlib.suppress(ConnectionError):
        peer.sendall(frame(b"\1" + b"x" * (1 << 20), more=False))
        assert peer.recv(1) == b""
    assert status(shared)["plain"]["prefixes"] == before


def test_what_was_taken_is_offered_before_the_broker_ends(context, tmp_path):
    with Broker(tmp_path, *BOTH, durable=False) as broker:
        listening, sending = subscriber(context, broker, b"t12"), publisher(context, broker)
        before = counter(broker, "plain_published")
        for number in range(3_000):
            sending.send_multipart([b"t12", b"%d" % number])
        until(lambda: counter(broker, "plain_published") > before)
        assert broker.terminate() == 0
        found = []
        while listening.poll(1_000 if found else WAIT_MS):
            found.append(listening.recv_multipart())
    assert found == [[b"t12", b"%d" % number] for number in range(len(found))]


@pytest.mark.parametrize("durable", [True, False], ids=["with a journal", "without"])
def test_both_directions_in_both_kinds_of_broker(context, tmp_path, durable):
    with Broker(tmp_path, *BOTH, durable=durable) as broker:
        listening, sending = subscriber(context, broker, b"a"), publisher(context, broker)
        with Subscriber(broker.url, "a.>") as ours, Publisher(broker.url, codec="json") as publishing:
            ours.ready(30)
            sending.send_multipart([b"a.b", b"plain"])
            assert ours.receive(30).body == b"plain"
            publishing.publish("a.c", [1])
            publishing.flush()
            assert heard(listening, 2) == [[b"a.b", b"plain"], [b"a.c", b"[1]"]]
