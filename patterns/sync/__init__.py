"""The roles for programs with threads: what waits, blocks. The same names as patterns.aio."""

from patterns.sync.admin import Admin
from patterns.sync.consumer import Batch, Consumer, Delivery
from patterns.sync.producer import Posted, Producer, Receipt, Receipts, SendManyError
from patterns.sync.publisher import Publisher
from patterns.sync.replier import IncomingRequest, Replier
from patterns.sync.requester import Requester, StreamedReply
from patterns.sync.subscriber import Subscriber

__all__ = [
    "Admin",
    "Batch",
    "Consumer",
    "Delivery",
    "IncomingRequest",
    "Posted",
    "Producer",
    "Publisher",
    "Receipt",
    "Receipts",
    "Replier",
    "Requester",
    "SendManyError",
    "StreamedReply",
    "Subscriber",
]
