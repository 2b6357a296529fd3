"""The headers and columns of SPEC.md as types; one definition serves both forms, msgpack and JSON. Shapes only: no logic."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from patterns.wire.limits import RANGES_MAX

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Nonce = Annotated[bytes, Meta(min_length=16, max_length=16)]


class Codec(StrEnum):
    """How bodies are written."""

    MSGPACK = "msgpack"
    JSON = "json"
    RAW = "raw"


class Role(StrEnum):
    """What a session is for."""

    REQUESTER = "requester"
    REPLIER = "replier"
    PUBLISHER = "publisher"
    SUBSCRIBER = "subscriber"
    PRODUCER = "producer"
    CONSUMER = "consumer"
    ADMIN = "admin"


class Overflow(StrEnum):
    """What a subscriber loses when more waits for it than the broker holds."""

    DROP_NEWEST = "drop_newest"
    DROP_OLDEST = "drop_oldest"
    DISCONNECT = "disconnect"


class Header(Struct, omit_defaults=True, gc=False):
    """A header: fields at their default are left out, unknown ones ignored."""


class Resume(Header):
    epoch: Count = 0
    sequence: Count = 0
    leases: Annotated[list[Count], Meta(max_length=RANGES_MAX)] = []


class Hello(Header, kw_only=True):
    role: Role
    nonce: Nonce
    versions: tuple[int, int] = (1, 1)
    codec: Codec = Codec.MSGPACK
    credit_messages: Count = 0
    credit_bytes: Count = 0
    require: list[str] = []
    offer: list[str] = []
    name: str = ""
    user: str = ""
    client: str = ""
    resume: Resume | None = None
    overflow: Overflow = Overflow.DROP_NEWEST


class ProducerIdentity(Header):
    id: Count
    epoch: Count = 0
    sequence: Count = 0


class Limits(Header):
    body_bytes_max: Count
    batch_bytes_max: Count


class Ready(Header, kw_only=True):
    version: int
    epoch: Count
    limits: Limits
    cluster: str = ""
    name: str = ""
    resumed: bool = False
    producer: ProducerIdentity | None = None
    services: list[str] = []
    heartbeat_ms: Count = 2_000
    expiry_ms: Count = 6_000
    credit_messages: Count = 0
    credit_bytes: Count = 0


class NoSessionHeader(Header):
    epoch: Count = 0


class Goodbye(Header):
    reason: str = ""
    retry_after_ms: Count = 0


class Ping(Header):
    token: Count = 0


class Pong(Header):
    token: Count = 0


class ErrorHeader(Header, kw_only=True):
    number: Annotated[int, Meta(ge=1, le=999)]
    name: str = ""
    detail: str = ""
    scope: str = "session"
    id: Count = 0
    code: str = ""
    retryable: bool = False
    retry_after_ms: Count = 0


class Credit(Header):
    messages: Count
    bytes: Count
    id: Count = 0


class Offer(Header):
    id: Count
    service: str


class Offered(Header):
    id: Count


class Withdraw(Header):
    service: str


class Request(Header, kw_only=True):
    id: Count
    service: str
    timeout_ms: Count
    wait_ms: Count = 1_000
    idempotent: bool = False
    credit_messages: Count = 0
    credit_bytes: Count = 0
    codec: Codec = Codec.MSGPACK
    count: Count = 1


class Reply(Header, kw_only=True):
    id: Count
    codec: Codec = Codec.MSGPACK
    count: Count = 1
    parts: Count = 0


class Partial(Header, kw_only=True):
    id: Count
    sequence: Count
    codec: Codec = Codec.MSGPACK
    count: Count = 1


class Cancel(Header):
    id: Count


class Publish(Header, kw_only=True):
    publisher: Nonce
    sequence: Count
    count: Count
    codec: Codec = Codec.MSGPACK
    topic: str | None = None


class Subscribe(Header):
    id: Count
    pattern: str


class Subscribed(Header):
    id: Count


class Unsubscribe(Header):
    id: Count


class Audience(Header):
    subscribers: Count


class Lost(Header, kw_only=True):
    messages: Count = 0
    upstream: Count = 0
    first: Count | None = None
    last: Count | None = None


class Echo(Header):
    publisher: Nonce
    sequences: dict[str, Count] = {}


class Append(Header, kw_only=True):
    stream: str
    producer: Count
    producer_epoch: Count
    sequence: Count
    previous: Count
    count: Count
    codec: Codec = Codec.MSGPACK
    topic: str | None = None
    confirm: str = "durable"


class Confirm(Header):
    sequence: Count
    offsets: list[Count]
    duplicates: list[Count] = []
    exceptions: list[tuple[Count, Count, Count, Count]] = []  # sequence, first place, its offset, how many messages


class Join(Header, kw_only=True):
    id: Count
    stream: str
    group: str = ""
    start: str | Count = "first"
    published_at: Count | None = None  # of `start` "time"
    mode: str = "slices"


class Joined(Header):
    id: Count
    next: Count
    lease_ms: Count = 30_000
    processing_max_ms: Count = 0  # 0: the group says nothing of it


class Deliver(Header, kw_only=True):
    lease: Count
    offset: Count
    count: Count
    published_at: Count
    attempt: Count = 1
    codec: Codec = Codec.MSGPACK
    topic: str | None = None


Range = tuple[Count, Count]


class Settle(Header, kw_only=True):
    lease: Count
    action: str
    id: Count = 0
    ranges: Annotated[list[Range], Meta(max_length=RANGES_MAX)] = []
    delay_ms: Count = 0
    reason: str = ""


class Settled(Header):
    id: Count
    stale: Count = 0


class Leave(Header):
    id: Count


class Admin(Header):
    id: Count
    verb: str
    arguments: dict[str, object] = {}


class Result(Header, kw_only=True):
    id: Count
    codec: Codec = Codec.MSGPACK
    count: Count = 1


class Columns(Struct, omit_defaults=True, gc=False):
    """What differs between the messages of a batch; each an array as long as the batch, but `topics`, the distinct ones."""

    sizes: list[Count] | UnsetType = UNSET
    topics: list[str] | UnsetType = UNSET
    topic: list[Count] | UnsetType = UNSET
    keys: list[str | None] | UnsetType = UNSET
    headers: list[dict[str, str] | None] | UnsetType = UNSET
    ids: list[str | None] | UnsetType = UNSET
    delays: list[Count] | UnsetType = UNSET
    offsets: list[Count] | UnsetType = UNSET
    published: list[int] | UnsetType = UNSET


KINDS: dict[bytes, type[Header]] = {
    b"H": Hello,
    b"h": Ready,
    b"N": NoSessionHeader,
    b"G": Goodbye,
    b"I": Ping,
    b"i": Pong,
    b"E": ErrorHeader,
    b"C": Credit,
    b"O": Offer,
    b"o": Offered,
    b"W": Withdraw,
    b"Q": Request,
    b"q": Reply,
    b"p": Partial,
    b"X": Cancel,
    b"P": Publish,
    b"S": Subscribe,
    b"s": Subscribed,
    b"U": Unsubscribe,
    b"w": Audience,
    b"l": Lost,
    b"e": Echo,
    b"A": Append,
    b"a": Confirm,
    b"J": Join,
    b"j": Joined,
    b"D": Deliver,
    b"K": Settle,
    b"k": Settled,
    b"L": Leave,
    b"M": Admin,
    b"m": Result,
}
