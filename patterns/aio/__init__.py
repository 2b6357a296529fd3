"""The roles for asyncio: what waits is awaited. The same names as patterns.sync."""

from patterns.aio.admin import Admin
from patterns.aio.consumer import Batch, Consumer, Delivery
from patterns.aio.producer import Posted, Producer, Receipt, Receipts, SendManyError
from patterns.aio.publisher import Publisher
from patterns.aio.replier import IncomingRequest, Replier
from patterns.aio.requester import Requester, StreamedReply
from patterns.aio.subscriber import Subscriber
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
