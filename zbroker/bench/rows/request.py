"""Request-reply, one after the other."""

from __future__ import annotations

from typing import Any, Final

from zbroker.bench.processes import Worker
from zbroker.bench.report import Sample
from zbroker.bench.rows.live import SEND, proxy
from zbroker.bench.rows.plan import RAW, Plan, Settings, bars, broker, timed

ASK: Final = "Requester.request() -> Replier.serve_forever()"


def asker(settings: Settings, role: str, address: str, **more: Any) -> Worker:
    """A worker that does operations one after the other."""
    return Worker(
        role,
        address=address,
        size=settings.size,
        seconds=settings.seconds,
        warm_up_s=settings.warm_up_s,
        rate=settings.rate,
        **more,
    )


def ask(settings: Settings, role: str, address: str, **more: Any) -> Sample:
    """Operations one after the other, by a worker of this role."""
    with asker(settings, role, address, **more) as asking:
        return timed(asking.said(settings.patience_s), settings.size)


def _bare(settings: Settings) -> Sample:
    with Worker("serve-bare", kind="rep", address=settings.endpoint(), binds=True) as server:
        return ask(settings, "ask-bare", server.said()["address"], kind="req")


def request_peer(settings: Settings) -> Sample:
    """Requester and Replier, peer to peer."""
    with Worker("serve-native", api=settings.api, address=settings.endpoint()) as server:
        return ask(settings, "ask-native", server.said()["address"], api=settings.api)


def _proxy(settings: Settings) -> Sample:
    with proxy(settings, "queue") as running:
        ends = running.said()
        with Worker("serve-bare", kind="rep", address=ends["backend"], binds=False) as server:
            server.said()
            return ask(settings, "ask-bare", ends["frontend"], kind="req")


def request_broker(settings: Settings) -> Sample:
    """Through a broker of its own."""
    with broker(settings) as address, Worker("serve-native", api=settings.api, address=address) as server:
        server.said()
        return ask(settings, "ask-native", address, api=settings.api)


_BARE: Final = frozenset(("size", "transport", "rate"))
_NATIVE: Final = frozenset(("size", "transport", "rate", "api"))

PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(name=name, group="request", label=label, api=api, body=RAW, run=run, honours=honours)
    for name, label, api, run, honours in (
        ("request-bare", "bare REQ-REP", SEND, _bare, _BARE),
        ("request-peer", "zbroker, peer to peer", ASK, request_peer, _NATIVE),
        ("request-proxy", "bare REQ - C proxy - REP", SEND, _proxy, _BARE),
        ("request-broker", "zbroker, through the broker", ASK, request_broker, _NATIVE),
    )
)

BARS: Final = bars(
    ("request-broker", "p50_us", ("request-proxy",), 1.5, False, "request p50 through the broker / C proxy"),
    ("request-peer", "p50_us", ("request-bare",), 1.3, False, "request p50 peer to peer / REQ-REP"),
)
