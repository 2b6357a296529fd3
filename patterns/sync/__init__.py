"""The roles for programs with threads: what waits, blocks. The same names as patterns.aio."""

from patterns.sync.admin import Admin
from patterns.sync.consumer import Batch, Consumer, Delivery
from patterns.sync.producer import Posted, Producer, Receipt, Receipts, SendManyError
from patterns.sync.publisher import Publisher
from patterns.sync.replier import IncomingRequest, Replier
from patterns.sync.requester import Requester, StreamedReply
from patterns.sync.subscriber import Subscriber
from patterns.wire.configs import GroupConfig, StreamConfig

__all__ = [
    "Admin",
    "Batch",
    "Consumer",
    "Delivery",
    "GroupConfig",
    "IncomingRequest",
    "Posted",
    "Producer",
    "Publisher",
    "Receipt",
    "Receipts",
    "Replier",
    "Requester",
    "SendManyError",
    "StreamConfig",
    "StreamedReply",
    "Subscriber",
]
