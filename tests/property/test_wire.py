"""The wire against anything: arbitrary frames, bodies, names and addresses, and models of ten lines."""

from __future__ import annotations

import typing
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from patterns.wire.address import parse_addresses
from patterns.wire.codec import check, decode, encode, items_of, join
from patterns.wire.engine import Send
from patterns.wire.errors import BadAddress, BadBody, BadName, ProtocolError, TooLarge, UnknownCommand
from patterns.wire.frames import JSON, MSGPACK, columns_of, pack, parse
from patterns.wire.limits import GRACE_MS, REPLIES_UNREAD_MAX
from patterns.wire.messages import KINDS, Codec, Columns, Goodbye, Hello, Limits, Ping, Ready, Resume, Role
from patterns.wire.names import check_pattern, check_topic, matcher
from patterns.wire.server import Sessions

FORMS = st.sampled_from([MSGPACK, JSON])
KEYS = {b"P": 1, b"e": 16}
counts = st.integers(0, 2**53 - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
values: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
nonces = st.binary(min_size=16, max_size=16)


def strategy_of(kind: Any) -> Any:
    """Values that a field's type admits; hypothesis knows nothing of msgspec's constraints."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        meta = arguments[1]
        if arguments[0] is bytes:
            return nonces
        if arguments[0] is int:
            return st.integers(meta.ge, meta.le)
        return strategy_of(arguments[0])
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind, include_extras=True)
        return st.builds(
            kind, **{name: strategy_of(hint) for name, hint in hints.items() if name != "__struct_fields__"}
        )
    if origin is list:
        return st.lists(strategy_of(arguments[0]), max_size=4)
    if origin is tuple:
        return st.tuples(*map(strategy_of, arguments))
    if origin is dict:
        return st.dictionaries(texts, strategy_of(arguments[1]), max_size=3)
    if arguments:  # a union
        return st.one_of([strategy_of(one) for one in arguments])
    simple = {str: texts, int: st.integers(-(2**53), 2**53), bool: st.booleans(), type(None): st.none(), object: values}
    return simple[kind] if kind in simple else st.sampled_from(list(kind))


def header_fields(header: type) -> dict[str, Any]:
    hints = typing.get_type_hints(header, include_extras=True)
    return {name: strategy_of(hints[name]) for name in header.__struct_fields__}  # type: ignore[attr-defined]


headers_by_kind = {kind: st.builds(header, **header_fields(header)) for kind, header in KINDS.items()}
first_frames = st.one_of(
    st.binary(max_size=24),
    st.sampled_from(sorted(KINDS)).flatmap(
        lambda kind: st.binary(min_size=KEYS.get(kind, 0), max_size=KEYS.get(kind, 0)).map(
            lambda key: b"ZB1" + kind + key
        )
    ),
)
maps = st.dictionaries(
    st.sampled_from(["id", "nonce", "role", "count", "codec", "topic", "leases", "resume"]), values, max_size=5
)
header_frames = st.one_of(st.binary(max_size=60), maps.map(msgspec.msgpack.encode), maps.map(msgspec.json.encode))
any_frames = st.one_of(
    st.lists(st.binary(max_size=40), max_size=6),
    st.tuples(first_frames, header_frames).map(list),
    st.tuples(first_frames, header_frames, st.binary(max_size=30), st.binary(max_size=30)).map(list),
)


@given(any_frames)
@settings(max_examples=400, deadline=None)
def test_arbitrary_frames_are_a_message_or_refused(frames):
    try:
        message = parse(frames)
    except (ProtocolError, UnknownCommand):
        return
    assert isinstance(message.header, KINDS[message.kind])
    try:
        columns_of(message, 2)
    except ProtocolError:
        pass


@pytest.mark.parametrize("kind", sorted(KINDS), ids=lambda kind: KINDS[kind].__name__)
@given(data=st.data(), form=FORMS, columns=st.binary(max_size=5), payload=st.binary(max_size=5))
@settings(max_examples=25, deadline=None)
def test_every_header_survives_in_both_forms(kind, data, form, columns, payload):
    header = data.draw(headers_by_kind[kind])
    key = bytes(KEYS.get(kind, 0))
    message = parse(pack(header, columns=columns, payload=payload, key=key, form=form))
    assert message.header == header
    assert (message.kind, message.key, message.columns, message.payload, message.form) == (
        kind,
        key,
        columns,
        payload,
        form,
    )


@st.composite
def columns_and_count(draw):
    count = draw(st.integers(1, 4))

    def column(items):
        return st.just(msgspec.UNSET) | st.lists(items, min_size=count, max_size=count)

    found = {
        "sizes": column(counts), "keys": column(st.none() | texts), "ids": column(st.none() | texts),
        "headers": column(st.none() | st.dictionaries(texts, texts, max_size=2)), "delays": column(counts),
        "offsets": column(counts), "published": column(st.integers(-(2**40), 2**40)),
    }  # fmt: skip
    columns = Columns(**{name: draw(items) for name, items in found.items()})
    if draw(st.booleans()):
        columns.topics = draw(st.lists(texts, min_size=1, max_size=3))
        columns.topic = draw(st.lists(st.integers(0, len(columns.topics) - 1), min_size=count, max_size=count))
    return columns, count


@given(columns_and_count(), FORMS)
@settings(max_examples=200, deadline=None)
def test_columns_survive_in_both_forms(drawn, form):
    columns, count = drawn
    packed = form.encoder.encode(columns)
    message = parse(pack(Ping(1), columns=packed, form=form))
    assert columns_of(message, count) == columns


bodies_by_codec = {
    Codec.RAW: st.lists(st.binary(max_size=50), min_size=1, max_size=8),
    Codec.MSGPACK: st.lists(values | st.binary(max_size=20) | st.floats(allow_nan=False), min_size=1, max_size=8),
    Codec.JSON: st.lists(values, min_size=1, max_size=8),
}
codecs = st.sampled_from(list(Codec))


@given(st.data(), codecs)
@settings(max_examples=200, deadline=None)
def test_bodies_survive_a_codec(data, codec):
    bodies = data.draw(bodies_by_codec[codec])
    (part,) = encode(codec, bodies)
    check(codec, part.payload, part.count, part.sizes)
    assert decode(codec, part.payload, part.count, part.sizes) == bodies
    items = items_of(codec, part.payload, part.count, part.sizes)
    assert join(codec, items) == part.payload


@given(codecs, st.binary(max_size=60), st.integers(-1, 6), st.none() | st.lists(st.integers(0, 30), max_size=6))
@settings(max_examples=600, deadline=None)
def test_arbitrary_payloads_are_checked_or_refused(codec, payload, count, sizes):
    for judge in (check, items_of, decode):
        try:
            judge(codec, payload, count, sizes)
        except (BadBody, TooLarge):
            pass


@given(codecs, st.integers(1, 5), st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_a_payload_that_passes_the_door_has_as_many_items_as_it_says(codec, count, payload):
    assume(codec is not Codec.RAW)
    try:
        check(codec, payload, count, None)
    except (BadBody, TooLarge):
        return
    assert len(items_of(codec, payload, count, None)) == count


tokens = st.text("ab+(*>.^$é", min_size=1, max_size=3)
topics = st.lists(st.text("ab+(^$é\\", min_size=1, max_size=2), min_size=1, max_size=4).map(".".join)
patterns = st.lists(st.sampled_from(["*", "a", "b", "ab", "+", "é"]), min_size=1, max_size=4).flatmap(
    lambda them: st.sampled_from([them, [*them, ">"], [">"]])
)


def model(pattern: list[str], topic: list[str]) -> bool:
    if pattern == [">"]:
        return bool(topic)
    if not pattern or not topic:
        return pattern == topic
    return pattern[0] in ("*", topic[0]) and model(pattern[1:], topic[1:])


@given(st.lists(patterns, max_size=3), topics)
@settings(max_examples=500, deadline=None)
def test_matching_is_the_models(listed, topic):
    matches = matcher([check_pattern(".".join(pattern)) for pattern in listed])
    assert matches(check_topic(topic)) is any(model(pattern, topic.split(".")) for pattern in listed)


@given(st.text(max_size=30) | st.lists(tokens, max_size=4).map(".".join))
@settings(max_examples=300, deadline=None)
def test_a_topic_is_a_pattern_that_matches_itself(text):
    try:
        topic = check_topic(text)
    except BadName:
        return
    assert check_pattern(topic) == topic
    assert matcher([topic])(topic)


address_texts = st.one_of(
    st.text(),
    st.text(st.characters()),
    st.tuples(
        st.sampled_from(["", "@", ">"]), st.sampled_from(["tcp://", "zb://", "ipc://", "zb+ipc://", "inproc://", "x://"]),
        st.text(st.sampled_from("ab:/.*[]01789,@> ٣²\ud800\n"), max_size=20),
    ).map("".join),
)  # fmt: skip


@given(address_texts)
@settings(max_examples=600, deadline=None)
def test_an_arbitrary_address_is_parsed_or_refused(text):
    try:
        addresses = parse_addresses(text)
    except BadAddress:
        return
    assert all(address.endpoint.isprintable() for address in addresses)
    assert len({address.brokered for address in addresses}) == 1


class House:
    """Admits all, and keeps count of whom it holds."""

    def __init__(self) -> None:
        self.effects: list[Any] = []
        self.sessions = Sessions(self, self.effects, 7, {Role.CONSUMER: GRACE_MS * 1_000})
        self.gone: list[Any] = []

    def admit(self, session, hello, now):
        return Ready(version=1, epoch=7, limits=Limits(1, 1), credit_messages=4, credit_bytes=100)

    def ended(self, session, reason, now):
        self.gone.append(session)


peers = st.sampled_from([b"p1", b"p2", b"p3"])
hellos = st.builds(
    Hello, role=st.sampled_from(list(Role)), nonce=st.sampled_from([b"a" * 16, b"b" * 16, b"c" * 16, b"d" * 16]),
    resume=st.none() | st.just(Resume(7)), require=st.sampled_from([[], ["x"]]), credit_messages=st.integers(0, 3),
)  # fmt: skip
known = st.one_of(hellos, st.just(Goodbye()), st.builds(Ping, counts), *headers_by_kind.values())
steps = st.lists(
    st.tuples(st.just("frames"), peers, any_frames)
    | st.tuples(st.just("header"), peers, known)
    | st.tuples(st.just("gone"), peers, st.none())
    | st.tuples(st.just("time"), peers, st.integers(0, 8_000_000)),
    max_size=40,
)


@given(steps)
@settings(max_examples=200, deadline=None)
def test_sessions_survive_arbitrary_peers_and_stay_bounded(steps):
    house, now = House(), 1_000_000
    for what, peer, detail in steps:
        if what == "time":
            now += detail
            house.sessions.handle_timeout(now)
        elif what == "gone":
            house.sessions.disconnected((0, peer), now)
        else:
            frames = detail
            if what == "header":
                kind = next(kind for kind, header in KINDS.items() if type(detail) is header)
                frames = pack(detail, key=bytes(KEYS.get(kind, 0)))
            house.sessions.receive(0, peer, frames, now)
        live = list(house.sessions)
        assert len({session.nonce for session in live}) == len(live) <= 4
        assert not any(session is gone for session in live for gone in house.gone)  # whoever was mourned stays dead
        attached = [session.peer for session in live if session is house.sessions.at(session.peer)]
        assert len(set(attached)) == len(attached) <= 3


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=2), any_frames), max_size=10))
@settings(max_examples=50, deadline=None)
def test_strangers_get_a_bounded_number_of_answers(said):
    house = House()
    for peer, frames in said * 60:
        if parses_as_hello(frames):
            continue
        house.sessions.receive(0, peer, frames, 1)
    for peer in {peer for peer, _frames in said}:
        answers = [effect for effect in house.effects if isinstance(effect, Send) and effect.peer == peer]
        assert len(answers) <= REPLIES_UNREAD_MAX


def parses_as_hello(frames: list[bytes]) -> bool:
    try:
        return parse(frames).kind == b"H"
    except (ProtocolError, UnknownCommand):
        return False
