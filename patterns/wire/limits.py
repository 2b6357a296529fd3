"""Every limit of the wire protocol, with its unit and its reason (SPEC.md 11). Numbers only: no logic."""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

BODY_BYTES_MAX: Final = 1 * MIB  # small messages are the purpose; NATS draws the line at the same place
BATCH_BYTES_TARGET: Final = 64 * KIB  # above it a batch gains nothing, below it the per-batch cost shows
BATCH_BYTES_MAX: Final = BODY_BYTES_MAX + 64 * KIB  # one largest body, and its columns
BATCH_MESSAGES_MAX: Final = 65_536  # bounds what one frame makes a receiver allocate
HEADER_BYTES_MAX: Final = 64 * KIB  # 10,000 leases in a resume fit
COLUMNS_BYTES_MAX: Final = 1 * MIB
COLUMNS_BYTES_TARGET: Final = 128 * KIB  # our clients close a batch here: JSON, six bytes for U+0000, fits too
ATTRIBUTES_BYTES_MAX: Final = 64 * KIB  # key, headers and id of one message, beside a largest body
RANGES_MAX: Final = 10_000
NAME_BYTES_MAX: Final = 255
DEPTH_MAX: Final = 32
BODY_DEPTH_MAX: Final = 128  # of what is translated, or written as JSON; serde_json stops there, jq 1.6 at 256
CHANNELS: Final = 64
INTEGER_MAX: Final = 2**53 - 1  # the largest that a JSON peer can hold exactly

HEARTBEAT_MS: Final = 2_000
EXPIRY_MS: Final = 6_000
HEARTBEAT_MS_MIN: Final = 100  # of what READY may ask a client for: ten a second are no load yet,
HEARTBEAT_MS_MAX: Final = 60_000  # and who is told to wait for longer would never learn that nobody is there
EXPIRY_MS_MAX: Final = 180_000
HANDSHAKE_MS: Final = 5_000
RECONNECT_MS: Final = 100
RECONNECT_MS_MAX: Final = 1_000
RETRY_AFTER_MS_MAX: Final = 60_000  # what a client waits at most because the other end asked for it
HELLO_JITTER_MS: Final = 500  # spreads 1,000 clients that come back at once
GRACE_MS: Final = 2_000  # a lost connection keeps its leases so long
SERVICE_WAIT_MS: Final = 1_000  # a request waits so long for a first replier

CREDIT_MESSAGES: Final = 65_536  # what B grants a session at first, and keeps open
CREDIT_BYTES: Final = 4 * MIB  # two of the largest commits; 100 clients may hold 400 MiB at the worst
PARTS_WINDOW: Final = 128  # parts of a streamed reply that a requester of ours lets come ahead of who takes them
PART_BYTES_WINDOW: Final = 256 * KIB  # likewise; a replier's generator stands still meanwhile
PARTS_AHEAD_MAX: Final = 1_024  # what a requester may ask for: a broker's guard reckons with it for each request
PART_BYTES_AHEAD_MAX: Final = 1 * MIB
REPLIES_UNREAD_MAX: Final = 256  # answers to a peer that shows no sign of reading
REPLIES_UNREAD_CUT: Final = 1_024
REPLIES_HELD_BYTES_MAX: Final = 8 * MIB  # replies and parts that one requester has given no credit for
UNREAD_BYTES_MAX: Final = 8 * MIB  # under way to a peer that has not proven to read: twice what our own clients grant
PRODUCER_BATCHES_REMEMBERED: Final = 64
PLAIN_WAITING_MESSAGES_MAX: Final = 32  # of one plain publisher, up to 1 MiB each; zbroker/processes/DECISIONS.md
PLAIN_UNREAD_MESSAGES_MAX: Final = 16_384  # of one plain subscriber, each on its own; of 100 bytes, 8 MiB in memory
PLAIN_PREFIX_BYTES_MAX: Final = KIB  # no topic is that long, and libzmq's trie takes 32 bytes for each
PLAIN_PREFIXES_BYTES_MAX: Final = 64 * KIB  # of one connection: 1,800 of 20 bytes
PEER_PREFIXES_BYTES_MAX: Final = (
    1 * MIB
)  # of one connection to a Publisher: a forwarder holds 36 for each subscriber behind it
PEER_PREFIXES_BYTES_MAX_OF_ALL: Final = 2 * MIB  # libzmq takes 46 times that; as much may wait to be looked at
SUBSCRIBERS_MAX: Final = 65_536  # of one Publisher peer to peer, as far as they are counted
PLAIN_PREFIXES_BYTES_MAX_OF_ALL: Final = 512 * KIB  # libzmq walks through all of them at the end of each connection
DELAY_MS_MAX: Final = 365 * 86_400_000  # of a delayed message, a nack, a backoff; who waits longer has a calendar
SECONDS_MAX: Final = 1e9  # of any time that a user names: thirty years; in microseconds still below 2^53
UNSETTLED_MAX: Final = 10_000_000  # of what a group may have lent and waiting; a hundred bytes each at the worst
DEDUP_IDS_MAX: Final = 1_000_000  # that a stream may remember; some 150 bytes each
TOPICS_CAPTURED_MAX: Final = 1_024  # patterns of one stream
