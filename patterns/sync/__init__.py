"""The roles for programs with threads: what waits, blocks. The same names as patterns.aio."""

from patterns.sync.publisher import Publisher
from patterns.sync.replier import IncomingRequest, Replier
from patterns.sync.requester import Requester
from patterns.sync.subscriber import Subscriber

__all__ = ["IncomingRequest", "Publisher", "Replier", "Requester", "Subscriber"]
