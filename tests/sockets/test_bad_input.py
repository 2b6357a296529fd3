"""Everything that a peer should not do, against a real broker with a journal; a healthy program runs beside it throughout.

Peaks and times are printed (`pytest -rP`); of times nothing is asserted but that what must end does.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time

import msgspec
import pytest

from patterns.io.guard_kernel import available
from patterns.sync import Consumer, Producer, Publisher, Replier, Requester, Subscriber
from patterns.wire.errors import NotInThisDeployment
from patterns.wire.identity import publisher_of
from patterns.wire.names import channel_of
from tests.processes import LONG, until
from tests.sockets.flood import ENDLESS_MULTIPART, ENDLESS_TINY_FRAMES, WHOLE_MESSAGES, Flood, frame, raw_peer
from tests.sockets.hostile import BUDGET, MIB, Peer, Target, half_open, hello_frames, hello_of

CUT_S = 30.0  # measured 0.1 to 1.6, and 4.2 on a machine with ten times the work that it can do
PEERS = 100
only_guarded = pytest.mark.skipif(not available, reason="the guard needs TCP_INFO")


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    target = Target(tmp_path_factory.mktemp("attacked"))
    yield target
    target.close()


@pytest.fixture(autouse=True)
def beside(request, target):
    """After each attack the broker serves, and the healthy program has lost nothing."""
    target.forget_peak()
    began = time.monotonic()
    yield
    peak = target.resident("VmHWM")
    target.calm()
    worst = target.ask_healthy()["worst_ms"]
    print(
        f"{request.node.name}: {time.monotonic() - began:.2f} s, peak {peak / MIB:.0f} MiB, healthy worst {worst:.0f} ms"
    )


@pytest.fixture
def peer(target):
    with Peer(target.context, target.endpoint) as peer:
        yield peer


def columns(**found):
    return msgspec.msgpack.encode(found)


# -- what cannot be read ---------------------------------------------------------------------------------------------


def test_random_frames_are_counted_and_answered_so_often(target, peer):
    """In bursts that a guard does not take for a flood, however slow the broker's machine is: each one is counted."""

    def refused():
        return sum(count for name, count in target.refused().items() if name.startswith("PROTOCOL_ERROR"))

    before = refused()
    chance = random.Random(5)
    for sent in range(500, 5_001, 500):
        for _ in range(500):
            peer.socket.send_multipart([chance.randbytes(chance.randrange(60)) for _ in range(chance.randrange(1, 7))])
        until(lambda sent=sent: refused() == before + sent, what="counting them")
    assert peer.receive("E")["number"] == 100


def test_random_bytes_at_the_port_end_that_connection_only(target):
    chance = random.Random(6)
    for size in (1, 10, 64, 500, 50_000):
        with socket.create_connection(("127.0.0.1", target.port), timeout=5) as stranger:
            stranger.sendall(chance.randbytes(size))
        with raw_peer(target.port) as stranger:
            stranger.sendall(chance.randbytes(size))


@pytest.mark.parametrize(
    ("kind", "header", "number"),
    [
        ("H", b'{"jsonrpc": "2.0", "method": "hello"}', 100),
        ("H", b"{" * 5_000, 100),
        ("H", b'{"role":"requester","nonce":"AAAA"}', 100),
        ("H", b"\x81" * 30_000, 100),
        ("Q", b"{}", 100),
        ("Z", b"\x80", 104),
        ("H", hello_of("emperor", b"n" * 16), 100),
        ("H", hello_of("requester", b"n" * 16, versions=[7, 9]), 101),
        ("H", hello_of("requester", b"n" * 16, require=["telepathy"] * 900), 102),
        ("H", hello_of("requester", b"n" * 16, credit=(1 << 63, 1 << 63)), 100),
        ("H", hello_of("requester", b"n" * 16, client="x" * 66_000), 100),
    ],
)
def test_a_header_that_is_not_ours_gets_an_error_with_its_number(peer, kind, header, number):
    peer.send(kind, header)
    assert peer.receive("E")["number"] == number


@pytest.mark.parametrize("kind", "QqpXOWPSUAJKLCM")
def test_without_a_hello_nothing_is_done(target, peer, kind):
    headers = {"Q": {"id": 1, "service": "s", "timeout_ms": 1}, "C": {"messages": 1, "bytes": 1}, "L": {"id": 1}}
    peer.send(kind, headers.get(kind, {}), key=b"\0" if kind == "P" else b"")
    answer = peer.receive("NE")
    assert answer["kind"] == "N" or answer["number"] == 100


def test_the_wrong_role_is_told_so(peer):
    peer.hello("subscriber")
    peer.send("Q", {"id": 1, "service": "healthy", "timeout_ms": 1_000}, b"", b"\x91\x01")
    assert peer.receive("E")["number"] == 105


# -- who never reads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flood", ["PING", "unknown", "HELLO", "JOIN", "SETTLE", "NO_SESSION", "request", "offer"])
def test_answers_to_a_peer_that_never_reads_are_bounded(target, flood):
    said = {
        "PING": ("requester", "I", {"token": 1}),
        "unknown": ("requester", "Z", {}),
        "HELLO": ("requester", "H", hello_of("producer", b"h" * 16, name="hello-flood")),
        "JOIN": ("consumer", "J", {"id": 1, "stream": "attacked", "group": "joiner", "mode": "batches"}),
        "SETTLE": ("consumer", "K", {"id": 1, "lease": 77, "action": "ack"}),
        "NO_SESSION": ("", "I", {"token": 1}),
        "request": ("requester", "Q", {"id": 1, "service": "nobody-there", "timeout_ms": 60_000, "wait_ms": 60_000}),
        "offer": ("replier", "O", {"id": 1, "service": "offered"}),
    }
    role, kind, header = said[flood]
    count = 60_000 if LONG else 15_000
    before = target.counters().get("answers_withheld", 0)
    with Peer(target.context, target.endpoint) as peer:
        if role:
            peer.hello(role)
        if flood == "SETTLE":
            peer.send("J", {"id": 1, "stream": "attacked", "group": "settler"})
        for _ in range(count):
            peer.send(kind, header, b"", b"\x91\x01")
        until(lambda: target.counters().get("answers_withheld", 0) > before + count // 2, what="withholding")
    assert target.resident("VmHWM") < BUDGET


def test_a_subscriber_with_huge_credit_that_never_reads_costs_a_bound(target):
    body = b"x" * (MIB // 2)
    with Peer(target.context, target.endpoint) as idle, Publisher(target.url, codec="raw", timeout_s=20) as publisher:
        idle.hello("subscriber", credit=(1 << 50, 1 << 50))
        idle.send("S", {"id": 1, "pattern": "heavy.>"})
        idle.receive("s")
        dropped = target.counters().get("live_dropped", 0)
        for _ in range(400):
            publisher.publish("heavy.stuff", body)
        until(lambda: target.counters().get("live_dropped", 0) > dropped + 100, what="dropping for the idle one")
    assert target.resident("VmHWM") < BUDGET


def test_a_consumer_with_huge_credit_that_never_reads_costs_a_bound(target):
    with Producer(target.url, "backlog", codec="raw", timeout_s=30) as producer:
        producer.send_many([b"y" * (MIB // 2)] * 120)
    with Peer(target.context, target.endpoint) as idle:
        idle.hello("consumer", credit=(1 << 50, 1 << 50))
        idle.send("J", {"id": 1, "stream": "backlog", "group": "idle", "mode": "batches"})
        idle.receive("j")
        time.sleep(1.0)  # nothing tells that no more comes
        group = target.status()["groups"]["backlog/idle"]
        assert 0 < group["leased"] < 60
    assert target.resident("VmHWM") < BUDGET


def test_a_requester_with_huge_credit_that_never_reads_costs_a_bound(target, peer):
    service = "big"
    with Replier(target.url, service, lambda body: b"z" * (MIB // 2), codec="raw") as replier:
        replier.ready(10)
        threading.Thread(target=replier.serve_forever, daemon=True).start()
        peer.hello("requester", credit=(1 << 50, 1 << 50), codec="raw")
        for number in range(150):
            peer.send("Q", {"id": number, "service": service, "timeout_ms": 60_000, "codec": "raw"}, b"", b"x")
        until(lambda: target.refused().get("OVERLOADED", 0) > 50, what="refusing replies that nobody reads")
    assert target.resident("VmHWM") < BUDGET


# -- floods ----------------------------------------------------------------------------------------------------------


@only_guarded
@pytest.mark.parametrize(
    ("chunk", "count", "role"),
    [
        pytest.param(ENDLESS_MULTIPART, 1, None, id="endless-multipart-1"),
        pytest.param(ENDLESS_MULTIPART, PEERS, None, id="endless-multipart-100"),
        pytest.param(WHOLE_MESSAGES, PEERS, None, id="whole-before-hello-100"),
        pytest.param(WHOLE_MESSAGES, PEERS, "publisher", id="whole-after-hello-100"),
        pytest.param(ENDLESS_TINY_FRAMES, 1, None, id="tiny-1"),
        pytest.param(ENDLESS_TINY_FRAMES, 20, None, id="tiny-20"),
        pytest.param(ENDLESS_TINY_FRAMES, PEERS, None, id="tiny-100"),
    ],
)
def test_a_flood_is_cut_and_its_memory_given_back(target, chunk, count, role):
    openings = [hello_frames(role) for _ in range(count)] if role else []
    before = target.cuts()
    duration_s = 8.0 if chunk is WHOLE_MESSAGES else CUT_S  # whole ones are refused one by one by a loop that keeps up
    flood = Flood(target.port, chunk, count, duration_s=duration_s, bytes_max=4_000 * MIB, openings=openings)
    with flood:
        flood.join()
    print(
        f"sent {flood.sent_bytes / MIB:.0f} MiB, {len(flood.cut_after_s)} cut, last after {max(flood.cut_after_s, default=-1):.2f} s"
    )
    if chunk is WHOLE_MESSAGES:
        assert (
            flood.cut_after_s or target.refused()["PROTOCOL_ERROR.frames"] > 0
        )  # a loop that keeps up refuses one by one
        return
    assert len(flood.cut_after_s) == count
    until(lambda: target.cuts() > before, what="counting the cuts")


def test_an_oversized_message_ends_its_connection_only(target):
    with raw_peer(target.port) as peer:
        peer.settimeout(10)
        try:
            peer.sendall(frame(b"x" * (2 * MIB), more=False))
            while peer.recv(65_536):
                pass
        except (ConnectionResetError, BrokenPipeError):
            pass


@pytest.mark.parametrize("role", ["requester", "publisher", "producer"])
def test_a_body_above_the_limit_gets_too_large(peer, role):
    peer.hello(role)
    body = b"\x91\xc6" + (MIB + 40_000).to_bytes(4, "big") + b"x" * (MIB + 40_000)
    match role:
        case "requester":
            peer.send("Q", {"id": 1, "service": "healthy", "timeout_ms": 1_000}, b"", body)
        case "publisher":
            header = {"publisher": publisher_of(peer.nonce), "sequence": 0, "count": 1, "topic": "a"}
            peer.send("P", header, b"", body, key=bytes([channel_of("a")]))
        case _:
            peer.append(1, body)
    assert peer.receive("E")["number"] == 301


def test_a_thousand_connections_that_come_and_go_leave_nothing_behind(target):
    for number in range(1_000):
        if number % 2:
            with raw_peer(target.port) as stranger:
                stranger.sendall(hello_frames("requester"))
        else:
            with socket.create_connection(("127.0.0.1", target.port), timeout=5):
                pass
    until(lambda: target.status()["sessions"].get("requester", 0) <= 2, what="forgetting them")


@pytest.mark.parametrize("sent", [0, 1, 9, 10, 11, 63, 64, 70])
def test_half_a_handshake_holds_up_nobody(target, sent):
    held = [half_open(target.port, sent) for _ in range(20)]
    target.ask_healthy()
    for one in held:
        one.close()


def test_greetings_byte_by_byte_hold_up_nobody(target):
    slow = [half_open(target.port, 0) for _ in range(30)]
    try:
        for byte in (b"\xff", b"\0", b"\0", b"\0"):
            for one in slow:
                one.sendall(byte)
            target.ask_healthy()
    finally:
        for one in slow:
            one.close()


# -- lies ------------------------------------------------------------------------------------------------------------

LIES = {
    "count-too-high": ({"count": 5}, b"\x91\x01", b"", 300),
    "count-zero": ({"count": 0}, b"\x91\x01", b"", 300),
    "count-huge": ({"count": 2**53 - 1}, b"\x91\x01", b"", 300),
    "not-an-array": ({}, b"\xc1\xc1\xc1", b"", 300),
    "array-32-lies": ({"count": 65_536}, b"\xdd\xff\xff\xff\xff", b"", 300),
    "json-invalid": ({"codec": "json"}, b'["\xff"]', b"", 300),
    "json-deep": ({"codec": "json"}, b"[" * 100_000, b"", 300),
    "msgpack-deep": ({}, b"\x91" * 100_000, b"", 300),
    "sizes-lie": ({"codec": "raw", "count": 2}, b"abc", columns(sizes=[1, 9]), 300),
    "sizes-overflow": ({"codec": "raw", "count": 2}, b"abc", columns(sizes=[2**53 - 1, 1]), 300),
    "columns-garbage": ({}, b"\x91\x01", b"\xc1garbage", 100),
    "columns-of-another-length": ({}, b"\x91\x01", columns(keys=["a", "b"]), 100),
    "columns-huge": ({}, b"\x91\x01", columns(keys=["k" * (MIB + 10)]), 100),
    "topic-index-out-of-range": ({}, b"\x91\x01", columns(topics=["a"], topic=[7]), 100),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("role", ["producer", "publisher", "requester"])
def test_a_lying_batch_is_refused_with_a_number(target, peer, role, lie):
    more, payload, found, number = LIES[lie]
    peer.hello(role)
    match role:
        case "producer":
            peer.append(1, payload, found, **more)
        case "publisher":
            header = {"publisher": publisher_of(peer.nonce), "sequence": 0, "count": 1, "topic": "a", **more}
            peer.send("P", header, found, payload, key=bytes([channel_of("a")]))
        case _:
            header = {"id": 1, "service": "healthy", "timeout_ms": 5_000, "count": 1, **more}
            peer.send("Q", header, found, payload)
    assert peer.receive("E")["number"] in (number, 100, 301)


def test_a_topic_of_another_channel_is_refused(peer):
    peer.hello("publisher")
    header = {"publisher": publisher_of(peer.nonce), "sequence": 0, "count": 1, "topic": "healthy.live"}
    peer.send("P", header, b"", b"\x91\x01", key=bytes([(channel_of("healthy") + 1) % 64]))
    assert peer.receive("E")["number"] == 100
    peer.send("P", header | {"publisher": b"o" * 16}, b"", b"\x91\x01", key=bytes([channel_of("healthy")]))
    assert peer.receive("E")["number"] == 100


@pytest.mark.parametrize("name", ["", "x" * 256, "../../etc/passwd", "a/b", "..", "a\0b", "a\nb", "a b", "*", "\x85"])
def test_a_bad_name_is_refused_wherever_it_stands(target, peer, name):
    peer.hello("producer")
    peer.append(1, stream=name)
    assert peer.receive("E")["number"] == 200
    for role, kind, header in (
        ("replier", "O", {"id": 1, "service": name}),
        ("consumer", "J", {"id": 1, "stream": name or "\0", "group": "g"}),
        ("consumer", "J", {"id": 1, "stream": "attacked", "group": name or "\0"}),
        ("requester", "Q", {"id": 1, "service": name, "timeout_ms": 5_000}),
    ):
        with Peer(target.context, target.endpoint) as other:
            other.hello(role)
            other.send(kind, header, *([b"", b"\x91\x01"] if kind == "Q" else []))
            assert other.receive("E")["number"] == 200


def test_the_longest_name_is_fine(peer):
    peer.hello("producer")
    peer.append(1, stream="é" * 127 + "x")
    assert peer.receive("aE")["kind"] == "a"


# -- durable -------------------------------------------------------------------------------------------------------


def test_an_ack_of_what_was_never_delivered_changes_nothing(target, peer):
    peer.hello("consumer")
    peer.send("J", {"id": 1, "stream": "healthy", "group": "healthy-too", "mode": "batches"})
    peer.receive("j")
    for lease, ranges in ((1, []), (2**53 - 1, [[0, 2**53 - 1]]), (0, [[5, 5]])):
        peer.send("K", {"id": 9, "lease": lease, "action": "ack", "ranges": ranges})
        assert peer.receive("kE").get("stale", 0) >= 1
    peer.send("K", {"id": 9, "lease": 1, "action": "ack", "ranges": [[9, 3]]})
    assert peer.receive("E")["number"] == 304
    peer.send("K", {"id": 9, "lease": 1, "action": "eat"})
    assert peer.receive("E")["number"] == 304


def test_ten_thousand_scattered_ranges_take_no_ones_time(target, peer):
    with Producer(target.url, "scattered", timeout_s=20) as producer:
        producer.send_many(list(range(20_000)))
    peer.hello("consumer", credit=(1 << 20, 1 << 26))
    peer.send("J", {"id": 1, "stream": "scattered", "group": "hostile", "mode": "batches"})
    found = [peer.receive("D") for _ in range(2)]
    target.ask_healthy()
    for delivery in found:
        first, count = delivery["offset"], delivery["count"]
        ranges = [[offset, offset] for offset in range(first, first + count, 2)][:10_000]
        for _ in range(5):
            peer.send("K", {"id": 5, "lease": delivery["lease"], "action": "ack", "ranges": ranges})
            peer.receive("k")
    assert target.ask_healthy()["worst_ms"] < 2_000
    peer.send("K", {"id": 5, "lease": 1, "action": "ack", "ranges": [[1, 1]] * 10_001})
    assert peer.receive("E")["number"] == 100


def test_a_sequence_with_other_bytes_and_a_gap_are_refused(peer):
    peer.hello("producer")
    peer.append(1)
    assert peer.receive("aE")["kind"] == "a"
    peer.append(1, b"\x91\x02")
    assert peer.receive("aE")["number"] == 109
    peer.append(7)
    assert peer.receive("aE")["number"] == 108
    peer.append(2, producer=12_345)
    assert peer.receive("aE")["number"] == 107


def test_a_producers_name_used_twice_fences_the_first(target, peer):
    peer.hello("producer", name="twin")
    with Peer(target.context, target.endpoint) as second:
        second.hello("producer", name="twin")
        assert peer.receive("E")["number"] == 106
        second.append(1)
        assert second.receive("aE")["kind"] == "a"


def test_credit_without_end_and_credit_that_falls_are_no_trouble(peer):
    peer.hello("consumer", credit=(2**53 - 1, 2**53 - 1))
    peer.send("J", {"id": 1, "stream": "healthy", "group": "", "mode": "batches"})
    peer.receive("j")
    peer.send("C", {"messages": 2**63, "bytes": 2**63})
    assert peer.receive("E")["number"] == 100
    peer.send("C", {"messages": 1, "bytes": 1})
    peer.receive("D")


def test_batches_beyond_the_credit_end_the_session_with_credit_exceeded(peer):
    peer.hello("requester")
    for number in range(12):
        header = {"id": number, "service": "nobody", "timeout_ms": 60_000, "wait_ms": 60_000, "codec": "raw"}
        peer.send("Q", header, b"", b"x" * MIB)
    assert peer.receive("E")["number"] == 402


def test_columns_count_against_the_credit(peer):
    peer.hello("requester")
    found = columns(headers=[{"h": "x" * 1_000_000}])
    for number in range(12):
        header = {"id": number, "service": "nobody", "timeout_ms": 60_000, "wait_ms": 60_000}
        peer.send("Q", header, found, b"\x91\x01")
    assert peer.receive("E")["number"] == 402


@pytest.mark.parametrize("role", [Requester, Producer, Consumer, Publisher, Subscriber, Replier])
def test_security_is_not_in_this_deployment(target, role):
    arguments = {Producer: ["s"], Consumer: ["s"], Subscriber: ["t"], Replier: ["s"]}.get(role, [])
    with pytest.raises(NotInThisDeployment):
        role(target.url, *arguments, security=os.urandom(32))
