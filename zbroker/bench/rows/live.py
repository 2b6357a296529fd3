"""Live publish-subscribe: one sender and one receiver, and what other groups make of the same parts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from zbroker.bench.processes import Device, Worker
from zbroker.bench.report import Sample
from zbroker.bench.rows.plan import DICT, RAW, STAMPED, Plan, Settings, bars, broker

PUBLISH: Final = "Publisher.publish() -> for message in Subscriber"
SEND: Final = "Socket.send() -> Socket.recv()"
DICT_BODY: Final = "dict of six fields, msgpack"
_DICT_BYTES: Final = 0  # the size of a dict is its own
Start = Callable[[dict[str, Any]], Worker]  # from what both ends of a sample are told


def measure(
    settings: Settings,
    sender: Start,
    receiver: Callable[[str, dict[str, Any]], Worker],
    *,
    body: str = RAW,
    senders: int = 1,
    receivers: int = 1,
    meanwhile: Callable[[], None] | None = None,
) -> Sample:
    """Start the senders, then receivers at where they are, and add up what all say.

    Args:
        sender: starts one, from what it is told.
        receiver: starts one, from the senders' addresses with commas, and what it is told.
        body: "raw", "dict" or "stamped".
        meanwhile: called once all have begun.
    """
    told = {"body": body, "size": _DICT_BYTES if body == DICT else settings.size}
    to_senders = {"seconds": settings.seconds, "senders": senders, "receivers": receivers, "rate": settings.rate}
    with ExitStack() as stack:
        sending = [stack.enter_context(sender({**told, **to_senders, "sender": number})) for number in range(senders)]
        where = [one.said() for one in sending]
        addresses = ",".join(dict.fromkeys(one["address"] for one in where))
        to_receivers = {"windows": [one["window"] for one in where], "warm_up_s": settings.warm_up_s}
        receiving = [
            stack.enter_context(receiver(addresses, {**told, **to_receivers, "who": who})) for who in range(receivers)
        ]
        for one in sending:
            one.said()
        if meanwhile is not None:
            meanwhile()
        sent = [one.said(settings.patience_s) for one in sending]
        received = [one.said() for one in receiving]
    return summed(sent, received)


def summed(sent: list[dict[str, Any]], received: list[dict[str, Any]]) -> Sample:
    """Rates add up; of latencies the worst receiver counts."""

    def worst(field: str) -> float | None:
        found = [one[field] for one in received if field in one]
        return max(found) if found else None

    messages = sum(one["sent"] for one in sent)
    batches = sum(one.get("batches", 0) for one in sent)
    arrived = sum(one["received"] for one in received)
    return Sample(
        rate=sum(one["rate"] for one in received),
        bytes_rate=sum(one["bytes_rate"] for one in received),
        p50_us=worst("p50_us"),
        p99_us=worst("p99_us"),
        p999_us=worst("p999_us"),
        max_us=worst("max_us"),
        messages=arrived,
        lost=messages * len(received) - arrived,
        damaged=sum(one["damaged"] for one in received),
        per_batch=messages / batches if batches else None,
    )


def native(
    settings: Settings,
    publish_at: Callable[[], str],
    receive_from: str | None = None,
    *,
    body: str = RAW,
    codecs: tuple[str, str] | None = None,
    senders: int = 1,
    receivers: int = 1,
    meanwhile: Callable[[], None] | None = None,
) -> Sample:
    """Publishers and Subscribers of ours.

    Args:
        publish_at: the address of each publisher.
        receive_from: where subscribers connect; None: at the publishers.
        codecs: of publisher and subscriber.
    """
    if settings.rate is not None:
        body = STAMPED
    sends, wants = codecs or (("msgpack", "msgpack") if body == DICT else ("raw", "raw"))

    def sender(told: dict[str, Any]) -> Worker:
        return Worker("send-native", api=settings.api, address=publish_at(), codec=sends, **told)

    def receiver(address: str, told: dict[str, Any]) -> Worker:
        return Worker("receive-native", api=settings.api, address=receive_from or address, codec=wants, **told)

    return measure(settings, sender, receiver, body=body, senders=senders, receivers=receivers, meanwhile=meanwhile)


def bare(
    settings: Settings,
    kinds: tuple[str, str],
    send_to: str | None = None,
    receive_from: str | None = None,
    *,
    senders: int = 1,
    receivers: int = 1,
) -> Sample:
    """Bare sockets of these kinds. Without `send_to` each sender binds, and receivers connect to it."""

    def sender(told: dict[str, Any]) -> Worker:
        address = send_to or settings.endpoint()
        return Worker("send-bare", kind=kinds[0], address=address, binds=send_to is None, **told)

    def receiver(address: str, told: dict[str, Any]) -> Worker:
        return Worker("receive-bare", kind=kinds[1], address=receive_from or address, **told)

    body = RAW if settings.rate is None else STAMPED
    return measure(settings, sender, receiver, body=body, senders=senders, receivers=receivers)


def through_proxy(settings: Settings, *, senders: int = 1, receivers: int = 1) -> Sample:
    """Bare PUB and SUB through libzmq's proxy in C, one message a frame."""
    with proxy(settings, "forwarder") as running:
        ends = running.said()
        return bare(settings, ("pub", "sub"), ends["frontend"], ends["backend"], senders=senders, receivers=receivers)


def proxy(settings: Settings, kind: str) -> Worker:
    """libzmq's own proxy, in C, in a process of its own."""
    return Worker("proxy", kind=kind, addresses=[settings.endpoint(), settings.endpoint()])


def through_broker(settings: Settings, **more: Any) -> Sample:
    """Through a broker of its own, without a journal."""
    with broker(settings) as address:
        return native(settings, lambda: address, address, **more)


def peer_to_peer(settings: Settings, **more: Any) -> Sample:
    """Subscribers at the publishers."""
    return native(settings, settings.endpoint, **more)


def _dict_peer(settings: Settings) -> Sample:
    return peer_to_peer(settings, body=DICT)


def _dict_broker(settings: Settings) -> Sample:
    return through_broker(settings, body=DICT)


def _proxy_batches(settings: Settings) -> Sample:
    with proxy(settings, "forwarder") as running:
        ends = running.said()
        return native(settings, lambda: ">" + ends["frontend"], ends["backend"])


def _push_pull(settings: Settings) -> Sample:
    return bare(settings, ("push", "pull"))


def _device(settings: Settings) -> Sample:
    with Device("streamer", settings.endpoint(), settings.endpoint(), None) as running:
        ends = running.said()
        return bare(settings, ("push", "pull"), ends["frontend"], ends["backend"])


def _device_capture(settings: Settings) -> Sample:
    with Device("streamer", settings.endpoint(), settings.endpoint(), settings.endpoint()) as running:
        ends = running.said()
        with Worker("stop-pulling", address=ends["capture"]) as reader:
            reader.said()
            return bare(settings, ("push", "pull"), ends["frontend"], ends["backend"])


_BARE: Final = frozenset(("size", "transport", "rate"))
_NATIVE: Final = frozenset(("size", "transport", "rate", "api"))
_DICTS: Final = frozenset(("transport", "api"))

PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(name=name, group=group, label=label, api=api, body=body, run=run, honours=honours)
    for name, group, label, api, body, run, honours in (
        ("live-push-pull", "live", "bare PUSH-PULL", SEND, RAW, _push_pull, _BARE),
        ("live-proxy", "live", "bare PUB - C proxy - SUB, one message a frame", SEND, RAW, through_proxy, _BARE),
        ("live-proxy-batches", "live", "zbroker roles - C proxy, the same batches", PUBLISH, RAW, _proxy_batches, _NATIVE),
        ("live-peer", "live", "zbroker, peer to peer", PUBLISH, RAW, peer_to_peer, _NATIVE),
        ("live-broker", "live", "zbroker, through the broker", PUBLISH, RAW, through_broker, _NATIVE),
        ("live-dict-peer", "live", "zbroker, peer to peer, dict", PUBLISH, DICT_BODY, _dict_peer, _DICTS),
        ("live-dict-broker", "live", "zbroker, through the broker, dict", PUBLISH, DICT_BODY, _dict_broker, _DICTS),
        ("device", "device", "bare PUSH - zbroker device - PULL", SEND, RAW, _device, _BARE),
        ("device-capture", "device", "the same, the capture's reader stands still", SEND, RAW, _device_capture, _BARE),
    )
)  # fmt: skip

BARS: Final = bars(
    ("live-broker", "rate", ("live-proxy",), 2.5, True, "live through the broker / C proxy, one message a frame"),
    ("live-broker", "rate", ("live-proxy-batches",), 0.6, True, "live through the broker / C proxy, same batches"),
    ("live-dict-broker", "rate", (), 1e6, True, "dict of six fields through the broker, messages/s"),
    ("device-capture", "rate", ("device",), 0.9, True, "device, the capture's reader stands still / no capture"),
)
