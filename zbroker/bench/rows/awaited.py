"""What asyncio costs: the rows of patterns.sync and of patterns.aio, side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from zbroker.bench.report import Sample
from zbroker.bench.rows.durable import BULK, bulk
from zbroker.bench.rows.live import PUBLISH, peer_to_peer, through_broker
from zbroker.bench.rows.plan import RAW, Plan, Settings, bars
from zbroker.bench.rows.request import ASK, request_broker, request_peer

_HONOURS: Final = frozenset(("size", "transport", "rate"))
_MOST: Final = 1.5  # what asyncio may cost


def _with(api: str, run: Callable[[Settings], Sample]) -> Callable[[Settings], Sample]:
    return lambda settings: run(msgspec.structs.replace(settings, api=api))


PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(
        name=f"aio-{name}" if api == "aio" else f"aio-{name}-sync",
        group="aio",
        label=f"{label}, {'asyncio' if api == 'aio' else 'threads'}",
        api=f"patterns.{api}: {calls}",
        body=RAW,
        run=_with(api, run),
        honours=_HONOURS,
    )
    for name, label, calls, run in (
        ("live-peer", "live, peer to peer", PUBLISH, peer_to_peer),
        ("live-broker", "live, through the broker", PUBLISH, through_broker),
        ("request-peer", "request, peer to peer", ASK, request_peer),
        ("request-broker", "request, through the broker", ASK, request_broker),
        ("durable", "on disk, 1 to 1", BULK, bulk),
    )
    for api in ("sync", "aio")
)

BARS: Final = bars(
    ("aio-live-peer-sync", "rate", ("aio-live-peer",), _MOST, False, "live rate peer to peer, threads / asyncio"),
    ("aio-live-broker-sync", "rate", ("aio-live-broker",), _MOST, False, "live rate through the broker, threads / asyncio"),
    ("aio-durable-sync", "rate", ("aio-durable",), _MOST, False, "durable rate, threads / asyncio"),
    ("aio-request-peer", "p50_us", ("aio-request-peer-sync",), _MOST, False, "request p50 peer to peer, asyncio / threads"),
    ("aio-request-broker", "p50_us", ("aio-request-broker-sync",), _MOST, False, "request p50 through the broker, asyncio / threads"),
)  # fmt: skip
