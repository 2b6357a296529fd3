"""The rows of `zbroker bench compare`: what each runs, and the bars that they are held against."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from zbroker.bench.processes import Broker, Device, Worker
from zbroker.bench.report import Bar, Sample

_READY_S: Final = 20.0
_SPARE_S: Final = 60.0  # beyond the measured time: what is under way still arrives, on a slow disk too
_DICT_BYTES: Final = 0  # the size of a dict is its own
KIB: Final = 1_024


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is made.

    Attributes:
        seconds: of each sample; the first fifth of it, at most half a second, is warm-up.
        repeat: rounds; in each, every row runs once.
        size: of a raw body, bytes.
        folder: on the disk that durable rows write to.
    """

    seconds: float
    repeat: int
    size: int
    folder: Path

    @property
    def warm_up_s(self) -> float:
        return min(0.5, self.seconds / 5)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One row before it is run: `group` rows are interleaved round by round."""

    name: str
    group: str
    label: str
    api: str
    body: str
    run: Callable[[Settings], Sample]


# -- live --------------------------------------------------------------------------------------------------------


def _live(sender: Worker, start_receiver: Callable[[str, str], Worker], settings: Settings) -> Sample:
    """Start a receiver at where the sender is, and add up what both say."""
    where = sender.said(_READY_S)
    with start_receiver(where["address"], where["window"]) as receiver:
        sent = sender.said(settings.seconds + _SPARE_S)
        received = receiver.said(_SPARE_S)
    batches = sent.get("batches")
    return Sample(
        rate=received["rate"],
        bytes_rate=received["bytes_rate"],
        messages=received["received"],
        lost=sent["sent"] - received["received"],
        damaged=received["damaged"],
        per_batch=sent["sent"] / batches if batches else None,
    )


def _native_live(settings: Settings, body: str, to: str, receive_from: str | None = None) -> Sample:
    size = settings.size if body == "raw" else _DICT_BYTES

    def receiver(address: str, window: str) -> Worker:
        return Worker(
            "receive-native",
            address=receive_from or address,
            window=window,
            body=body,
            size=size,
            warm_up_s=settings.warm_up_s,
        )

    with Worker("send-native", address=to, body=body, size=size, seconds=settings.seconds) as sender:
        return _live(sender, receiver, settings)


def _bare_live(settings: Settings, kinds: tuple[str, str], to: str, receive_from: str | None = None) -> Sample:
    def receiver(address: str, window: str) -> Worker:
        return Worker(
            "receive-bare",
            kind=kinds[1],
            address=receive_from or address,
            window=window,
            size=settings.size,
            warm_up_s=settings.warm_up_s,
        )

    with Worker(
        "send-bare", kind=kinds[0], address=to, binds=receive_from is None, size=settings.size, seconds=settings.seconds
    ) as sender:
        return _live(sender, receiver, settings)


def live_peer(settings: Settings) -> Sample:
    return _native_live(settings, "raw", "tcp://127.0.0.1:0")


def live_broker(settings: Settings) -> Sample:
    with _broker(None) as address:
        return _native_live(settings, "raw", address, address)


def live_dict_peer(settings: Settings) -> Sample:
    return _native_live(settings, "dict", "tcp://127.0.0.1:0")


def live_dict_broker(settings: Settings) -> Sample:
    with _broker(None) as address:
        return _native_live(settings, "dict", address, address)


def live_proxy_batches(settings: Settings) -> Sample:
    with Worker("proxy", kind="forwarder") as proxy:
        ends = proxy.said(_READY_S)
        return _native_live(settings, "raw", ">" + ends["frontend"], ends["backend"])


def live_proxy_frames(settings: Settings) -> Sample:
    with Worker("proxy", kind="forwarder") as proxy:
        ends = proxy.said(_READY_S)
        return _bare_live(settings, ("pub", "sub"), ends["frontend"], ends["backend"])


def live_push_pull(settings: Settings) -> Sample:
    return _bare_live(settings, ("push", "pull"), "tcp://127.0.0.1:*")


def device(settings: Settings) -> Sample:
    with Device("streamer", has_capture=False) as running:
        ends = running.said(_READY_S)
        return _bare_live(settings, ("push", "pull"), ends["frontend"], ends["backend"])


def device_capture(settings: Settings) -> Sample:
    with Device("streamer", has_capture=True) as running:
        ends = running.said(_READY_S)
        with Worker("stop-reading", address=ends["capture"]) as reader:
            reader.said(_READY_S)
            return _bare_live(settings, ("push", "pull"), ends["frontend"], ends["backend"])


# -- request-reply -----------------------------------------------------------------------------------------------


def _asked(asker: Worker, settings: Settings) -> Sample:
    with asker:
        said = asker.said(settings.seconds + _SPARE_S)
    return _sample(said, settings.size)


def _sample(said: dict[str, Any], size: int) -> Sample:
    return Sample(
        rate=said["rate"],
        bytes_rate=said.get("bytes_rate", said["rate"] * size),
        p50_us=said["p50_us"],
        p99_us=said["p99_us"],
        messages=said["received"],
        damaged=said.get("damaged", 0),
    )


def _ask(role: str, address: str, settings: Settings, **more: Any) -> Sample:
    asker = Worker(
        role, address=address, size=settings.size, seconds=settings.seconds, warm_up_s=settings.warm_up_s, **more
    )
    return _asked(asker, settings)


def request_bare(settings: Settings) -> Sample:
    with Worker("serve-bare", kind="rep", address="tcp://127.0.0.1:*", binds=True) as server:
        return _ask("ask-bare", server.said(_READY_S)["address"], settings, kind="req")


def request_peer(settings: Settings) -> Sample:
    with Worker("serve-native", address="tcp://127.0.0.1:0") as server:
        return _ask("ask-native", server.said(_READY_S)["address"], settings)


def request_proxy(settings: Settings) -> Sample:
    with Worker("proxy", kind="queue") as proxy:
        ends = proxy.said(_READY_S)
        with Worker("serve-bare", kind="rep", address=ends["backend"], binds=False) as server:
            server.said(_READY_S)
            return _ask("ask-bare", ends["frontend"], settings, kind="req")


def request_broker(settings: Settings) -> Sample:
    with _broker(None) as address, Worker("serve-native", address=address) as server:
        server.said(_READY_S)
        return _ask("ask-native", address, settings)


# -- durable -----------------------------------------------------------------------------------------------------


@contextmanager
def _broker(folder: Path | None) -> Iterator[str]:
    """A broker of its own; its journal, below `folder`, is removed afterwards."""
    with ExitStack() as stack:
        data: str | None = None
        if folder is not None:
            data = tempfile.mkdtemp(prefix="zbroker-bench-", dir=folder)
            stack.callback(shutil.rmtree, data, ignore_errors=True)
        broker = stack.enter_context(Broker(data))
        yield broker.address(_READY_S)


def _durable(settings: Settings, size: int) -> Sample:
    with (
        _broker(settings.folder) as address,
        Worker("consume", address=address, size=size, warm_up_s=settings.warm_up_s) as consumer,
    ):
        consumer.said(_READY_S)
        with Worker("produce", address=address, size=size, seconds=settings.seconds) as producer:
            sent = producer.said(settings.seconds + _SPARE_S)
            received = consumer.said(_SPARE_S)
    return Sample(
        rate=min(received["rate"], sent["confirmed_rate"]),
        bytes_rate=min(received["rate"], sent["confirmed_rate"]) * size,
        messages=received["received"],
        lost=sent["sent"] - received["received"],
        damaged=received["damaged"],
        per_batch=received["per_batch"],
    )


def durable(settings: Settings) -> Sample:
    return _durable(settings, settings.size)


def durable_kib(settings: Settings) -> Sample:
    return _durable(settings, KIB)


def confirm_one(settings: Settings) -> Sample:
    with _broker(settings.folder) as address:
        return _ask("send-each", address, settings)


def router_echo(settings: Settings) -> Sample:
    with Worker("serve-bare", kind="router", address="tcp://127.0.0.1:*", binds=True) as server:
        return _ask("ask-bare", server.said(_READY_S)["address"], settings, kind="dealer")


def _disk(settings: Settings, record_bytes: int) -> Sample:
    with Worker(
        "write-and-sync", folder=str(settings.folder), record_bytes=record_bytes, seconds=settings.seconds
    ) as worker:
        return _sample(worker.said(settings.seconds + _SPARE_S), record_bytes)


def disk_4k(settings: Settings) -> Sample:
    return _disk(settings, 4 * KIB)


def disk_64k(settings: Settings) -> Sample:
    return _disk(settings, 64 * KIB)


# -- the tables --------------------------------------------------------------------------------------------------

_PUBLISH: Final = "Publisher.publish() -> for message in Subscriber"
_SEND: Final = "Socket.send() -> Socket.recv()"
_ASK: Final = "Requester.request() -> Replier.serve_forever()"
_BULK: Final = "Producer.send_many() -> Consumer.batches(), acked"
_RAW: Final = "raw"
_DICT: Final = "dict of six fields, msgpack"

PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(name=name, group=group, label=label, api=api, body=body, run=run)
    for name, group, label, api, body, run in (
        ("live-push-pull", "live", "bare PUSH-PULL", _SEND, _RAW, live_push_pull),
        ("live-proxy", "live", "bare PUB - C proxy - SUB, one message a frame", _SEND, _RAW, live_proxy_frames),
        ("live-proxy-batches", "live", "zbroker roles - C proxy, the same batches", _PUBLISH, _RAW, live_proxy_batches),
        ("live-peer", "live", "zbroker, peer to peer", _PUBLISH, _RAW, live_peer),
        ("live-broker", "live", "zbroker, through the broker", _PUBLISH, _RAW, live_broker),
        ("live-dict-peer", "live", "zbroker, peer to peer, dict", _PUBLISH, _DICT, live_dict_peer),
        ("live-dict-broker", "live", "zbroker, through the broker, dict", _PUBLISH, _DICT, live_dict_broker),
        ("device", "device", "bare PUSH - zbroker device - PULL", _SEND, _RAW, device),
        ("device-capture", "device", "the same, the capture's reader stands still", _SEND, _RAW, device_capture),
        ("request-bare", "request", "bare REQ-REP", _SEND, _RAW, request_bare),
        ("request-peer", "request", "zbroker, peer to peer", _ASK, _RAW, request_peer),
        ("request-proxy", "request", "bare REQ - C proxy - REP", _SEND, _RAW, request_proxy),
        ("request-broker", "request", "zbroker, through the broker", _ASK, _RAW, request_broker),
        ("durable", "durable", "zbroker, on disk, 1 to 1", _BULK, _RAW, durable),
        ("durable-1k", "durable", "zbroker, on disk, 1 to 1, 1 KiB", _BULK, "raw, 1 KiB", durable_kib),
        ("disk-64k", "durable", "the disk: 64 KiB pwrite + fdatasync", "os.pwrite", "64 KiB", disk_64k),
        ("confirm-one", "confirm", "zbroker, one confirmed message at a time", "Producer.send()", _RAW, confirm_one),
        ("router-echo", "confirm", "bare DEALER - ROUTER round trip", _SEND, _RAW, router_echo),
        ("disk-4k", "confirm", "the disk: 4 KiB pwrite + fdatasync", "os.pwrite", "4 KiB", disk_4k),
    )
)

BARS: Final[tuple[Bar, ...]] = tuple(
    Bar(row=row, field=field, against=against, bar=bar, at_least=at_least, text=text)
    for row, field, against, bar, at_least, text in (
        ("live-broker", "rate", ("live-proxy",), 2.5, True, "live through the broker / C proxy, one message a frame"),
        ("live-broker", "rate", ("live-proxy-batches",), 0.6, True, "live through the broker / C proxy, same batches"),
        ("live-dict-broker", "rate", (), 1e6, True, "dict of six fields through the broker, messages/s"),
        ("device-capture", "rate", ("device",), 0.9, True, "device, the capture's reader stands still / no capture"),
        ("request-broker", "p50_us", ("request-proxy",), 1.5, False, "request p50 through the broker / C proxy"),
        ("request-peer", "p50_us", ("request-bare",), 1.3, False, "request p50 peer to peer / REQ-REP"),
        ("durable", "rate", (), 5e5, True, "durable, confirmed and acked, messages/s"),
        ("durable-1k", "bytes_rate", ("disk-64k",), 0.6, True, "durable 1 KiB / the disk's 64 KiB records, bytes/s"),
        ("confirm-one", "p50_us", ("router-echo", "disk-4k"), 1.8, False, "confirm p50 / (ROUTER round trip + fdatasync)"),
    )
)  # fmt: skip
