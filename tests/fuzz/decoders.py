"""What reads bytes or text of somebody else, and the promise of each: a value or its own errors, never another exception.

A target takes bytes, and raises only for a finding.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec

from patterns.core.message import Bodies
from patterns.io.guard_account import Account, wire_allowance
from patterns.io.guard_monitor import port_of
from patterns.wire import portable
from patterns.wire.address import is_loopback, parse_addresses
from patterns.wire.codec import BodyDecoder, check, decode, encode, items_of, join
from patterns.wire.errors import (
    BadAddress,
    BadBody,
    BadName,
    RemoteProtocolError,
    TooLarge,
    UnknownCommand,
    Untranslatable,
    ValidationFailed,
)
from patterns.wire.frames import JSON, MSGPACK, columns_of, pack, parse, reform
from patterns.wire.limits import BODY_BYTES_MAX
from patterns.wire.messages import KINDS, Codec
from patterns.wire.names import channel_of, channels_of, check_name, check_pattern, check_topic, matcher
from patterns.wire.records import decode_lost, encode_lost
from patterns.wire.subscriptions import Subscriptions
from tests.fuzz.script import Script
from zbroker.cli import bodies, lines
from zbroker.config import ConfigurationError, file_places, load
from zbroker.core.translate import translate

_CODECS: Final = (Codec.MSGPACK, Codec.JSON, Codec.RAW)
_COUNTS: Final = (1, 2, 3, 4, 7, 0, -1, 65_536, 65_537, 2**53 - 1)
_SHOWN_MAX: Final = 64 * 1024  # of an error's text: it quotes what came, and goes into ERROR and onto terminals


class _Order(msgspec.Struct):
    sku: int
    name: str = ""
    at: dt.datetime | None = None
    lines: list[dict[str, float]] = []


def _short(error: Exception) -> None:
    assert len(str(error)) < _SHOWN_MAX


def frames(data: bytes) -> None:
    """parse() and columns_of(), in both forms; what was read is written and read to the same."""
    try:
        message = parse(Script(data).frames())
    except (RemoteProtocolError, UnknownCommand) as error:
        _short(error)
        return
    assert isinstance(message.header, KINDS[message.kind])
    for form in (MSGPACK, JSON):
        try:
            again = pack(message.header, key=message.key, payload=message.payload, form=form)
        except (msgspec.MsgspecError, UnicodeError, OverflowError, TypeError):
            assert message.kind == b"M"  # `arguments` may hold what only one form can
            continue
        assert message.kind == b"M" or parse(again).header == message.header
    for count in (1, 2, 4):
        try:
            columns_of(message, count)
        except RemoteProtocolError:
            continue
        for form in (MSGPACK, JSON):
            reform(message.columns, message.form, form)


def payloads(data: bytes) -> None:
    """check(), items_of(), decode() for three codecs, and the typed decoders of a receiver."""
    script = Script(data)
    codec, count = script.one_of(_CODECS), script.one_of(_COUNTS)
    sizes = [script.number(2) for _ in range(script.byte() % 5)] if script.byte() % 2 else None
    payload = script.rest()
    checked = True
    try:
        check(codec, payload, count, sizes)
    except (BadBody, TooLarge):
        checked = False
    try:
        items = items_of(codec, payload, count, sizes)
    except BadBody:
        assert not checked or codec is Codec.MSGPACK
    else:
        assert len(items) == count
        assert codec is Codec.RAW or len(items_of(codec, join(codec, items), count, None)) == count
    with contextlib.suppress(BadBody):
        assert len(decode(codec, payload, count, sizes)) == count
    for kind in (Any, _Order, dict[str, int]):
        with contextlib.suppress(BadBody, ValidationFailed):
            BodyDecoder(kind).only(codec, payload)
        with contextlib.suppress(BadBody, TooLarge):
            Bodies(kind).decode(codec, payload, count, sizes)


def translations(data: bytes) -> None:
    """translate(), both ways, lax and strict: lossless, or refused."""
    script = Script(data)
    source, target = (Codec.MSGPACK, Codec.JSON) if script.byte() % 2 else (Codec.JSON, Codec.MSGPACK)
    strict = bool(script.byte() % 2)
    payload = script.rest()
    try:
        view = translate(payload, source, target, strict=strict)
    except Untranslatable as error:
        _short(error)
        return
    there = decode(source, payload, *_counted(source, payload))
    assert there == decode(target, view, len(there), None)
    assert there == decode(source, translate(view, target, source), len(there), None)


def _counted(codec: Codec, payload: bytes) -> tuple[int, None]:
    decoded = (msgspec.msgpack if codec is Codec.MSGPACK else msgspec.json).decode(payload)
    return len(decoded), None


def portables(data: bytes) -> None:
    """Python values as JSON: what is written reads as the same value, or BadBody says where and why."""
    script = Script(data)
    try:
        value: Any = msgspec.msgpack.decode(script.rest())
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return
    fault = portable.fault_in([value])
    try:
        (part,) = encode(Codec.JSON, [value])
    except (BadBody, TooLarge) as error:
        _short(error)
        return
    if fault is None:
        assert decode(Codec.JSON, part.payload, 1, None) == [value]
    bodies.is_json(value)
    bodies.shown(value, None, raw=False)


def addresses(data: bytes) -> None:
    """parse_addresses(): printable endpoints of one kind, or BadAddress."""
    try:
        found = parse_addresses(data.decode(errors="surrogateescape"))
    except BadAddress as error:
        _short(error)
        return
    assert len({address.brokered for address in found}) == 1
    for address in found:
        assert address.endpoint.isprintable()
        is_loopback(address.endpoint)


def names(data: bytes) -> None:
    """Names, topics and patterns; the broker's index of subscriptions finds what the receiver's matcher matches."""
    texts = [text.decode(errors="surrogateescape") for text in data.split(b"\xff")[:8]]
    patterns: list[str] = []
    topics: list[str] = []
    for text in texts:
        with contextlib.suppress(BadName):
            check_name(text, "stream")
        with contextlib.suppress(BadName):
            patterns.append(check_pattern(text))
            assert channels_of(text) is None or channels_of(text) in range(64)
        with contextlib.suppress(BadName):
            topics.append(check_topic(text))
            assert channel_of(text) in range(64)
    index: Subscriptions[str] = Subscriptions()
    for pattern in set(patterns):
        index.add(pattern, pattern)
    for topic in topics:
        wanted = {pattern for pattern in patterns if _matches(pattern.split("."), topic.split("."))}
        assert set(index.matching(topic)) == wanted
        assert matcher(patterns)(topic) is bool(wanted)
    for pattern in set(patterns):
        index.remove(pattern, pattern)
    assert not any(index.matching(topic) for topic in topics)


def _matches(pattern: list[str], topic: list[str]) -> bool:
    """SPEC.md 4, token by token."""
    if pattern == [">"]:
        return bool(topic)
    if not pattern or not topic:
        return pattern == topic
    return pattern[0] in ("*", topic[0]) and _matches(pattern[1:], topic[1:])


def configurations(data: bytes) -> None:
    """zbroker.toml, ZBROKER_ variables and flags: settings, or ConfigurationError."""
    script = Script(data)
    environment = {f"ZBROKER_{_text(script)}".replace("\0", ""): _text(script) for _ in range(script.byte() % 3)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "zbroker.toml")
        file.write_bytes(script.rest())
        try:
            settings = load({}, environment, [file])
        except ConfigurationError as error:
            _short(error)
            return
        settings.options.data_folder  # noqa: B018
        file_places(environment)


def _text(script: Script) -> str:
    return script.text().decode(errors="surrogateescape")


def command_lines(data: bytes) -> None:
    """Lines of standard input and BODY arguments: bodies, or BadBody and TooLarge with the line's number."""
    script = Script(data)
    raw = bool(script.byte() % 2)
    text = script.rest()
    with contextlib.suppress(BadBody):
        body = bodies.of_argument(text.replace(b"\0", b"").decode(errors="surrogateescape"), raw=raw)
        assert len(encode(Codec.RAW if raw else Codec.JSON, [body])[0].payload) <= BODY_BYTES_MAX
    read = lines.Lines(io.BytesIO(text))
    try:
        found = list(lines.bodies_of(read, raw=raw))
    except (BadBody, TooLarge) as error:
        _names_line(read, error, text)
        return
    assert len(found) <= text.count(b"\n") + 1
    for body in found:
        bodies.keyed(msgspec.json.decode(body) if isinstance(body, msgspec.Raw) else body, None, raw=raw)


def _names_line(read: lines.Lines, error: Exception, text: bytes) -> None:
    assert 0 < read.number <= text.count(b"\n") + 1
    assert f"line {read.number}: " in lines.at_line(read, error, "")


def lost_payloads(data: bytes) -> None:
    """What a LOST record says: damage, or msgspec's error, which recovery counts."""
    try:
        damage = decode_lost(data)
    except (msgspec.MsgspecError, UnicodeError):
        return
    assert decode_lost(encode_lost(damage)) == damage


def guards(data: bytes) -> None:
    """The guard's arithmetic on whatever totals the kernel gives, and endpoints as a monitor writes them."""
    script = Script(data)
    port_of(script.text())
    account = Account(
        fd=3, cookie=1, remote="", allowance_bytes=script.number(4), sessionless_bytes_max=script.number(4),
        received=script.number(8), delivered=script.number(8), settled_at=script.number(4),
        has_backpressure=bool(script.byte() % 2),
    )  # fmt: skip
    while not script.is_over:
        account.settle(script.number(8), script.number(8), script.number(6))
        assert account.undelivered >= 0
        account.exceeds(script.number(4))
    assert wire_allowance(script.number(4), script.number(2), BODY_BYTES_MAX) >= BODY_BYTES_MAX
