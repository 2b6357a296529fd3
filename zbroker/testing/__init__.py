"""For tests of services: brokers in memory and in processes, and pytest's fixture `zbroker` (plugin.py) around them.

The other modules of this package are what our own tests stand on. What is here is imported when it is first asked for, since
pytest loads the plugin, and this with it, in every project on a machine that has zbroker.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from zbroker.testing.memory import MemoryBroker
    from zbroker.testing.peers import Peers
    from zbroker.testing.process import BrokerProcess

__all__ = ["BrokerProcess", "MemoryBroker", "Peers"]

_PLACES: Final = {"MemoryBroker": "memory", "Peers": "peers", "BrokerProcess": "process"}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return found
