"""Beside nats-server: fed and drained with raw bytes, against our public classes; request-reply with nats-py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from zbroker.bench.processes import Worker
from zbroker.bench.report import Sample
from zbroker.bench.rows.fan import WIDE, fan_out
from zbroker.bench.rows.live import PUBLISH, measure, through_broker
from zbroker.bench.rows.plan import KIB, RAW, Plan, Settings, bars
from zbroker.bench.rows.request import ASK, ask, request_broker

NEEDS: Final = "nats"
_BYTES: Final = "ready bytes: PUB -> MSG"
_PY: Final = "nats-py: request() -> respond()"


def _live(settings: Settings, receivers: int = 1) -> Sample:
    with Worker("nats-server") as server:
        address = server.said()["address"]

        def sender(told: dict[str, Any]) -> Worker:
            return Worker("nats-send", address=address, **told)

        def receiver(_address: str, told: dict[str, Any]) -> Worker:
            return Worker("nats-receive", address=address, **told)

        return measure(settings, sender, receiver, receivers=receivers)


def _fan_out(settings: Settings) -> Sample:
    return _live(settings, WIDE)


def _request(settings: Settings) -> Sample:
    with Worker("nats-server") as server:
        address = server.said()["address"]
        with Worker("nats-reply", address=address) as replier:
            replier.said()
            return ask(settings, "nats-ask", address)


def _kib(run: Callable[[Settings], Sample]) -> Callable[[Settings], Sample]:
    return lambda settings: run(msgspec.structs.replace(settings, size=KIB))


_SIZED: Final = frozenset(("size",))
_FIXED: Final[frozenset[str]] = frozenset()
_KIB_BODY: Final = "raw, 1 KiB"

PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(name=name, group="nats", label=label, api=api, body=body, run=run, honours=honours, needs=NEEDS)
    for name, label, api, body, run, honours in (
        ("nats-live", "nats-server, live", _BYTES, RAW, _live, _SIZED),
        ("nats-live-broker", "zbroker, live through the broker", PUBLISH, RAW, through_broker, _SIZED),
        ("nats-live-1k", "nats-server, live, 1 KiB", _BYTES, _KIB_BODY, _kib(_live), _FIXED),
        ("nats-live-broker-1k", "zbroker, live, 1 KiB", PUBLISH, _KIB_BODY, _kib(through_broker), _FIXED),
        ("nats-fan-out", "nats-server, 1 to 8", _BYTES, RAW, _fan_out, _SIZED),
        ("nats-fan-out-broker", "zbroker, 1 to 8 through the broker", PUBLISH, RAW, fan_out, _SIZED),
        ("nats-request", "nats-py through nats-server, request", _PY, RAW, _request, _SIZED),
        ("nats-request-broker", "zbroker, request through the broker", ASK, RAW, request_broker, _SIZED),
    )
)

BARS: Final = bars(
    ("nats-live-broker", "rate", ("nats-live",), 1.0, True, "live through the broker / nats-server"),
    ("nats-live-broker-1k", "rate", ("nats-live-1k",), 1.0, True, "live 1 KiB through the broker / nats-server"),
    ("nats-fan-out-broker", "rate", ("nats-fan-out",), 1.0, True, "1 to 8 through the broker / nats-server"),
    ("nats-request-broker", "p50_us", ("nats-request",), 0.6, False, "request p50 through the broker / nats-py"),
)
