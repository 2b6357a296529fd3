"""The first ten minutes in half a minute: five steps on real data, each of which prints what it saw.

A step raises StepFailed when what it saw is not what is promised; nothing here is printed that was not counted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from patterns.sync import Admin
from zbroker.demo.airports import airports
from zbroker.demo.children import Broker, program

Say = Callable[[str], None]
_KILL_AFTER: Final = 0.4  # of the messages
_PATTERN: Final = "airports.KR.>"
_IDLE_S: Final = "2.5"
_PREFIX_S: Final = 10.0


class StepFailed(Exception):
    """The demo saw something that must not be."""


def expect(seen: object, wanted: object, what: str) -> None:
    """Raise StepFailed unless both are equal."""
    if seen != wanted:
        raise StepFailed(f"{what}: saw {seen}, expected {wanted}")


@contextmanager
def _broker() -> Iterator[Broker]:
    with tempfile.TemporaryDirectory(prefix="zbroker-demo-") as folder:
        broker = Broker(Path(folder) / "data")
        try:
            broker.start()
            yield broker
        finally:
            broker.stop()


def step_peer_to_peer(say: Say) -> dict[str, Any]:
    """1. No broker anywhere."""
    say("1. Two services and a publisher talk with no broker at all")
    with tempfile.TemporaryDirectory(prefix="zbroker-demo-") as folder:
        return _talk(say, f"ipc://{folder}/replier", f"ipc://{folder}/publisher")


def step_brokered(say: Say) -> dict[str, Any]:
    """2. The same programs; only the address changed."""
    say("2. The same programs through a broker: only the address changed")
    with _broker() as broker:
        return _talk(say, broker.url, broker.url)


def _talk(say: Say, replier_at: str, publisher_at: str) -> dict[str, Any]:
    with program("reply", replier_at) as replier:
        replier.line()
        with program("request", replier_at, "RKSI") as requester:
            answer = requester.line()
        say(f"   Requester({replier_at!r}) asked 'airport' for RKSI: {answer['name']}, {answer['city']}")
        expect(answer["name"], airports()["RKSI"]["name"], "the reply")
    wanted = sum(airport["country"] == "KR" for airport in airports().values())
    with (
        program("publish", publisher_at) as publisher,
        program("subscribe", publisher_at, _PATTERN, str(wanted)) as subscriber,
    ):
        expect(subscriber.line(), {"ready": True}, "the subscriber")
        published = next(said["published"] for said in publisher.lines() if "published" in said)
        received = subscriber.line()
    say(f"   Publisher({publisher_at!r}) published {published:,} airports, each under its own topic")
    say(f"   Subscriber(.., {_PATTERN!r}) received {received['received']} of {wanted}, lost {received['lost']}")
    expect((received["received"], received["lost"]), (wanted, 0), "messages of the pattern")
    return {"published": published, **received}


def step_queue(say: Say) -> dict[str, Any]:
    """3. A work queue between formats, with onlookers."""
    say(
        "3. A JSON producer, a msgpack consumer group; a plain SUB socket and a JSON-only program without our library watch"
    )
    with _broker() as broker:
        wanted = sum(airport["country"] == "KR" for airport in airports().values())
        with (
            program("watch", broker.endpoint, "KR", str(wanted)) as watcher,
            program("overhear", broker.xpub, "KR", str(wanted)) as plain,
        ):
            expect(watcher.line(), {"ready": True}, "the watcher")
            _await_prefix(broker)
            with program("publish", broker.url) as publisher:
                list(publisher.lines())
            watched, overheard = watcher.line()["received"], plain.line()["received"]
        expect(watched, wanted, "messages that the JSON-only program saw")
        expect(overheard, wanted, "messages that the plain SUB socket heard")
        say(
            f"   pyzmq and json alone, from SPEC.md: read {watched} of {wanted} of {_PATTERN!r}, published as msgpack, as JSON"
        )
        say(f"   a bare SUB socket at the broker's port for plain ZeroMQ: heard {overheard} of {wanted}, by a prefix")
        confirmed, done = _work_off(broker, None)
    _account(confirmed, done)
    say(f"   {len(confirmed):,} airports confirmed on disk as JSON, {len(done):,} worked off by a group as dicts")
    return {"watched": watched, "overheard": overheard, "confirmed": len(confirmed), "consumed": len(done)}


def _await_prefix(broker: Broker) -> None:
    """Until the broker knows what the plain SUB socket wants: the SUB itself is told nothing."""
    deadline = time.monotonic() + _PREFIX_S
    with Admin(broker.url) as admin:
        while not admin.status()["plain"]["prefixes"]:
            expect(time.monotonic() < deadline, True, "the plain SUB socket, connected in time")
            time.sleep(0.01)


def step_kill(say: Say) -> dict[str, Any]:
    """4. SIGKILL in the middle."""
    say("4. The same work queue; the broker is killed with SIGKILL in the middle and started again")
    with _broker() as broker:
        confirmed, done = _work_off(broker, say)
        epoch = broker.epoch
    again = sum(attempt > 1 for _code, attempt in done.values())
    missing, offsets = _account(confirmed, done)
    say(
        f"   confirmed {len(confirmed):,}, consumed {len(done):,}, confirmed and missing: {missing}; "
        f"{again} were delivered again (attempt 2); {offsets:,} offsets, none used twice"
    )
    return {"confirmed": len(confirmed), "missing": missing, "redelivered": again, "epoch": epoch}


def _work_off(broker: Broker, say: Say | None) -> tuple[dict[int, str], dict[int, tuple[str, int]]]:
    """Produce and consume the data set; with `say`, kill the broker in the middle. What was confirmed, and what was done."""
    confirmed: dict[int, str] = {}
    done: dict[int, tuple[str, int]] = {}
    with program("consume", broker.url, "airports", "workers", _IDLE_S) as consumer:
        with program("produce", broker.url, "airports") as producer:
            killed = say is None
            for said in producer.lines():
                _confirm(confirmed, said)
                if not killed and len(confirmed) > _KILL_AFTER * len(airports()):
                    killed = True
                    assert say is not None
                    _kill(broker, len(confirmed), say)
        for said in consumer.lines():
            for offset, code, attempt in said["done"]:
                _done(done, offset, code, attempt)
    return confirmed, done


def _confirm(confirmed: dict[int, str], said: dict[str, Any]) -> None:
    if "error" in said:
        raise StepFailed(said["error"])
    for code, offset in zip(said["codes"], said["offsets"], strict=True):
        expect(confirmed.setdefault(offset, code), code, f"the message confirmed at offset {offset}")


def _done(done: dict[int, tuple[str, int]], offset: int, code: str, attempt: int) -> None:
    before = done.get(offset)
    if before is not None:
        expect(code, before[0], f"the message delivered again at offset {offset}")
    done[offset] = (code, attempt)


def _kill(broker: Broker, confirmed: int, say: Say) -> None:
    broker.kill()
    began = time.monotonic()
    broker.start()
    took_ms = (time.monotonic() - began) * 1e3
    say(
        f"   kill -9 after {confirmed:,} confirms; ready again in {took_ms:.0f} ms, process start included, as epoch {broker.epoch}"
    )


def _account(confirmed: dict[int, str], done: dict[int, tuple[str, int]]) -> tuple[int, int]:
    """How many confirmed messages nobody consumed, which must be none, and how many offsets there are."""
    missing = [offset for offset in confirmed if offset not in done]
    expect(len(missing), 0, "confirmed messages that nobody consumed")
    for offset, code in confirmed.items():
        expect(done[offset][0], code, f"the message at offset {offset}")
    expect(len(confirmed), len(airports()), "confirmed messages")
    return len(missing), len(done)


STEPS: Final[tuple[Callable[[Say], dict[str, Any]], ...]] = (
    step_peer_to_peer,
    step_brokered,
    step_queue,
    step_kill,
)
