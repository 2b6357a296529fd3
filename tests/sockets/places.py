"""The two deployments that each body of a test runs in, and threads that serve meanwhile. No test lives here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from patterns.sync import Publisher, Replier
from tests.processes import Broker

JOIN_S = 20.0


class Place:
    """Peer to peer, or through a broker.

    Attributes:
        broker: None peer to peer.
        bind: the address for the role that binds peer to peer.
    """

    def __init__(self, broker: Broker | None) -> None:
        self.broker = broker
        self.bind = broker.url if broker else "tcp://127.0.0.1:0"

    @property
    def brokered(self) -> bool:
        return self.broker is not None

    def of(self, *roles: Replier | Publisher) -> str:
        """The address for the role that connects to these."""
        return self.broker.url if self.broker else ",".join(role.address for role in roles)


@contextmanager
def place_of(kind: str, folder: Path) -> Iterator[Place]:
    """A Place of that kind."""
    if kind == "peer":
        yield Place(None)
        return
    with Broker(folder, durable=False) as broker:
        yield Place(broker)


@contextmanager
def serving(address: str, service: str, handler: Callable[[Any], Any], **more: Any) -> Iterator[Replier]:
    """A Replier whose handler runs in a thread."""
    with Replier(address, service, handler, **more) as replier:
        replier.ready(10)
        thread = threading.Thread(target=replier.serve_forever, name=f"serving {service}", daemon=True)
        thread.start()
        yield replier
    thread.join(JOIN_S)
    assert not thread.is_alive(), "serve_forever() ends on close()"


class Crowd:
    """Threads whose exceptions are the test's, and that must end."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []

    def run(self, call: Callable[..., object], *arguments: object) -> threading.Thread:
        def body() -> None:
            try:
                call(*arguments)
            except BaseException as error:  # noqa: BLE001  handed to the test's thread
                self.errors.append(error)

        thread = threading.Thread(target=body, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def join(self, timeout_s: float = JOIN_S) -> None:
        for thread in self._threads:
            thread.join(timeout_s)
            assert not thread.is_alive(), f"{thread} is stuck"
        if self.errors:
            raise self.errors[0]
