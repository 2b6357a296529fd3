"""For tests of services: a broker in memory, and the `zbroker` fixture of pytest (plugin.py). Its other modules are what our own tests stand on."""

from zbroker.testing.memory import MemoryBroker

__all__ = ["MemoryBroker"]
