"""One to eight and eight to one. Rates are deliveries: each message counts at each of its receivers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from zbroker.bench.report import Sample
from zbroker.bench.rows.live import PUBLISH, SEND, bare, peer_to_peer, through_broker, through_proxy
from zbroker.bench.rows.plan import RAW, Plan, Settings, bars

WIDE: Final = 8
_HONOURS: Final = frozenset(("size", "transport"))
_OUT: Final = {"receivers": WIDE}
_IN: Final = {"senders": WIDE}


def _bare(settings: Settings, *, senders: int = 1, receivers: int = 1) -> Sample:
    return bare(settings, ("pub", "sub"), senders=senders, receivers=receivers)


def _shaped(run: Callable[..., Sample], shape: dict[str, int]) -> Callable[[Settings], Sample]:
    return lambda settings: run(settings, **shape)


def fan_out(settings: Settings) -> Sample:
    """Through the broker."""
    return through_broker(settings, **_OUT)


_SHAPES: Final[tuple[tuple[str, str, dict[str, int]], ...]] = (("out", "1 to 8", _OUT), ("in", "8 to 1", _IN))
_WAYS: Final[tuple[tuple[str, str, str, Callable[..., Any]], ...]] = (
    ("bare", "bare PUB - SUB", SEND, _bare),
    ("proxy", "bare PUB - C proxy - SUB", SEND, through_proxy),
    ("peer", "zbroker, peer to peer", PUBLISH, peer_to_peer),
    ("broker", "zbroker, through the broker", PUBLISH, through_broker),
)

PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(
        name=f"fan-{shape}-{way}",
        group="fan",
        label=f"{label}, {how}",
        api=api,
        body=RAW,
        run=_shaped(run, sizes),
        honours=_HONOURS,
    )
    for shape, how, sizes in _SHAPES
    for way, label, api, run in _WAYS
)

BARS: Final = bars(
    *(
        (f"fan-{shape}-{ours}", "rate", (f"fan-{shape}-{theirs}",), None, True, f"{how}, {text}")
        for shape, how, _ in _SHAPES
        for ours, theirs, text in (
            ("broker", "proxy", "through the broker / C proxy, deliveries/s"),
            ("peer", "bare", "peer to peer / bare PUB-SUB, deliveries/s"),
        )
    )
)
