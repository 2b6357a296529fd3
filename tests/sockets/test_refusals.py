"""Each refusal is told with its number, and counted under a name of its own, as often as it happened and nothing else."""

from __future__ import annotations

import ast
import contextlib
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from patterns.io.guard_kernel import available
from patterns.sync import Admin
from patterns.wire import errors
from patterns.wire.errors import BY_NUMBER, ZbrokerError
from tests.processes import Broker, until
from tests.sockets.hostile import Peer
from tests.sockets.provocations import (
    BESIDE,
    COUNTERS,
    REFUSALS,
    TIMES,
    Scene,
    ask,
    broken_off,
    endless,
    endless_in_a_session,
    no_zmtp,
    wrong_socket,
)
from tests.sockets.test_bad_disk import broker as broker_on
from tests.sockets.test_bad_disk import small_disk  # noqa: F401

ROOT = Path(__file__).parents[2]
ANSWERING = ("zbroker/core", "patterns/wire")
only_guarded = pytest.mark.skipif(not available, reason="the guard needs TCP_INFO")

ELSEWHERE = {
    "NOT_IN_THIS_DEPLOYMENT": "test_a_broker_without_a_journal_refuses_durable_roles",
    "SHUTTING_DOWN": "test_a_broker_that_shuts_down_refuses_what_is_new",
    "STORAGE_FAILED": "test_a_failed_disk_is_told_to_each_producer",
    "STORAGE_FULL": "test_a_full_disk_is_told_to_each_producer",
}
NEVER_TOLD = {
    "ERROR": "the root of the tree",
    "BAD_ADDRESS": "of a client's own library",
    "UNAVAILABLE": "of a client's own library",
    "CLOSED": "of a client's own library",
    "FORKED": "of a client's own library",
    "BUFFER_FULL": "of a client's own library",
    "VALIDATION_FAILED": "of a client's own library: a broker knows no types",
    "CANCELLED": "of a replier's own library",
    "TIMED_OUT": "of a client's own clock; the broker counts timed_out",
    "INSECURE": "encryption is not built",
    "NOT_PERMITTED": "permissions are not built",
    "DAMAGED": "a consumer hears of damage in LOST",
    "APPLICATION_ERROR": "a replier's own, passed on",
    "HANDLER_FAILED": "a replier's own, passed on",
}


NOTHING_WRONG = {"published", "requests", "parts"}  # and plain_..: tests/sockets/test_plain.py
NOT_BY_PEERS = {"stored_unreadable"}  # tests/unit/core/test_deliveries.py


class Watched:
    """A broker, and what its status counts, asked by one session that stays."""

    def __init__(self, url: str) -> None:
        self.endpoint = url.replace("zb://", "tcp://")
        self.admin = Admin(url, timeout_s=30)

    def section(self, name: str) -> Counter[str]:
        return Counter(self.admin.status()[name])

    @property
    def guard(self) -> dict[str, Any]:
        """Refreshed by the broker once a second, so to be waited for."""
        guard: dict[str, Any] = self.admin.status()["guard"]
        return guard

    @property
    def unfinished(self) -> int:
        """Connections that neither finished the handshake nor failed in a way that libzmq tells."""
        guard = self.guard
        return int(guard["accepted"] - guard["handshakes"] - sum(guard["handshakes_failed"].values()))


@contextlib.contextmanager
def watched(url: str) -> Iterator[Watched]:
    found = Watched(url)
    with found.admin:
        found.admin.status()  # its session is there from now on
        yield found


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("refusing")) as broker, watched(broker.url) as target:
        yield target


@pytest.fixture
def scene(target):
    with Scene(target.endpoint) as scene:
        yield scene


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_has_its_number_and_its_counter(target, scene, name):
    number, provoke = REFUSALS[name]
    before = target.section("refused")
    answers = provoke(scene)
    assert [answer.get("number", 103 if answer["kind"] == "N" else 0) for answer in answers] == [number] * TIMES
    assert all(answer["kind"] == "N" or answer["name"] == name.partition(".")[0] for answer in answers)
    assert target.section("refused") - before == {name: TIMES, **BESIDE.get(name, {})}


@pytest.mark.parametrize("name", COUNTERS)
def test_what_is_not_refused_has_its_counter_too(target, scene, name):
    if name.startswith("sessions_"):
        until(lambda: target.admin.status()["sessions"]["total"] == 1, what="the end of other tests' sessions")
    before = target.section("counters")
    count = COUNTERS[name](scene)
    assert count >= TIMES
    until(lambda: (target.section("counters") - before)[name] >= count, what=f"counting {name}")
    assert (target.section("counters") - before)[name] == count


# -- connections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "provoke"), [("protocol", no_zmtp), ("broken_off", broken_off)])
def test_a_handshake_that_comes_to_nothing_is_counted_by_what_libzmq_tells(target, scene, name, provoke):
    before = Counter(target.guard["handshakes_failed"])
    provoke(scene)
    until(lambda: Counter(target.guard["handshakes_failed"]) - before == {name: TIMES}, what=f"counting {name}")


def test_a_socket_of_the_wrong_type_is_a_connection_without_a_handshake(target, scene):
    until(lambda: target.unfinished == 0, what="the end of other tests' connections")
    wrong_socket(scene)
    until(lambda: target.unfinished == TIMES, what="counting them")


@only_guarded
@pytest.mark.parametrize(("name", "provoke"), [("before_hello", endless), ("beyond_credit", endless_in_a_session)])
def test_a_cut_is_counted_by_what_was_exceeded(target, scene, name, provoke):
    before = Counter(target.guard["cuts"])
    provoke(scene)
    until(lambda: Counter(target.guard["cuts"]) - before == {name: TIMES}, what=f"counting {name}")


# -- brokers in another state ----------------------------------------------------------------------------------------


def numbers(peer: Peer) -> list[int]:
    return [peer.receive("E")["number"] for _ in range(TIMES)]


def test_a_broker_without_a_journal_refuses_durable_roles(tmp_path):
    with Broker(tmp_path, durable=False) as broker, watched(broker.url) as target, Scene(target.endpoint) as scene:
        peer = scene.stranger()
        for _ in range(TIMES):
            peer.send("H", {"role": "producer", "nonce": peer.nonce})
        assert numbers(peer) == [207] * TIMES
        assert target.section("refused") == {"NOT_IN_THIS_DEPLOYMENT": TIMES}


def test_a_broker_that_shuts_down_refuses_what_is_new(tmp_path):
    with Broker(tmp_path) as broker, watched(broker.url) as target, Scene(target.endpoint) as scene:
        replier, peer = scene.replier("held"), scene.peer("requester")
        ask(peer, 0, service="held")
        held = replier.receive("Q")
        broker.process.signal(signal.SIGTERM)
        refused = 0
        while not refused:  # the signal may be slower than a request; what it takes before has a replier
            stranger = scene.stranger()
            stranger.send("H", {"role": "requester", "nonce": stranger.nonce})
            refused += stranger.receive("hE").get("number") == 403
        for number in range(1, TIMES + 1):
            ask(peer, number, service="held")
        assert numbers(peer) == [403] * TIMES
        assert target.section("refused") == {"SHUTTING_DOWN": refused + TIMES}
        replier.send("q", {"id": held["id"]}, b"", b"\x91\x01")
        assert broker.process.wait() == 0


def test_a_failed_disk_is_told_to_each_producer(tmp_path):
    with Broker(tmp_path) as broker, watched(broker.url) as target, Scene(target.endpoint) as scene:
        peer = scene.peer("producer")
        shutil.move(broker.data, tmp_path / "elsewhere")
        until(lambda: any("disk has failed" in text for text in target.admin.status()["warnings"]), what="noticing it")
        for sequence in range(1, TIMES + 1):
            peer.append(sequence)
        assert numbers(peer) == [500] * TIMES
        assert target.section("refused") == {"STORAGE_FAILED": TIMES}


def test_a_full_disk_is_told_to_each_producer(tmp_path, small_disk):  # noqa: F811
    folder, _ = small_disk
    with broker_on(tmp_path, folder / "data") as (_, url), watched(url) as target, Scene(target.endpoint) as scene:
        peer, sequence = scene.peer("producer"), 1
        peer.append(sequence, b"x" * 900_000, codec="raw")
        while (answer := peer.receive("aE"))["kind"] == "a":
            sequence += 1
            peer.append(sequence, b"x" * 900_000, codec="raw")
        for _ in range(TIMES - 1):
            peer.append(sequence, b"x" * 900_000, codec="raw")
        assert [answer["number"], *(peer.receive("E")["number"] for _ in range(TIMES - 1))] == [501] * TIMES
        assert target.section("refused") == {"STORAGE_FULL": TIMES}


# -- nothing is left out ---------------------------------------------------------------------------------------------


def counted_as(kind: type[ZbrokerError]) -> str:
    return f"{kind.name}.{kind.part}" if kind.part else kind.name


def kinds() -> dict[str, type[ZbrokerError]]:
    """Every error that has a name of its own or a part, by what it is counted as."""
    found: dict[str, type[ZbrokerError]] = {}
    waiting: list[type[ZbrokerError]] = [ZbrokerError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        found.setdefault(counted_as(kind), kind)
    return found


def test_every_error_is_provoked_or_has_a_reason_why_not():
    assert sorted({*REFUSALS, *ELSEWHERE, *NEVER_TOLD}) == sorted(kinds())
    assert {number for number, _ in REFUSALS.values()} <= set(BY_NUMBER)
    assert all(name in globals() for name in ELSEWHERE.values())


def test_what_is_never_told_is_made_nowhere_in_the_broker():
    made: set[str] = set()
    for folder in ANSWERING:
        for path in (ROOT / folder).glob("*.py"):
            if path.name not in ("address.py", "errors.py"):
                calls = (
                    node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
                )
                made |= {node.func.id for node in calls if isinstance(node.func, ast.Name)}
    classes = {name: kind for name in made if isinstance(kind := getattr(errors, name, None), type)}
    told = {counted_as(kind) for kind in classes.values() if issubclass(kind, ZbrokerError)}
    assert told & set(NEVER_TOLD) <= {"VALIDATION_FAILED"}  # codec.py serves both ends; BodyDecoder is a client's


def test_only_one_place_makes_the_header_of_an_error():
    sources = [path for path in (ROOT / "zbroker").rglob("*.py") if "error_header(" in path.read_text(encoding="utf-8")]
    assert not sources


def test_every_counter_of_the_spec_is_provoked_or_nothing_is_wrong_with_it():
    spec = (ROOT / "patterns/wire/SPEC.md").read_text(encoding="utf-8")
    table = spec.partition("| key in `counters` | |")[2].partition("\n\n")[0]
    listed = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", f"{row}||".split("|")[1])}
    assert set(COUNTERS) <= listed
    assert {name for name in listed - set(COUNTERS) if not name.startswith("plain_")} <= NOTHING_WRONG | NOT_BY_PEERS
