"""No broker at all, for tests of services that talk peer to peer: an address for each, in a folder that is thrown away."""

from __future__ import annotations

import shutil
import tempfile
from types import TracebackType
from typing import Final, NoReturn, Self

from patterns.wire.errors import NotInThisDeployment

_NO_BROKER: Final = "there is no broker here that could {what}: use the mode `memory` or `broker`"


class Peers:
    """Addresses where a Replier or a Publisher binds, and others connect. A context manager.

    Attributes:
        mode: "peer".
        url: where roles meet when there is only one that binds; address() is for more.
    """

    mode: Final = "peer"

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="zb-")  # short: a socket's path has 107 bytes
        self._addresses: dict[str, str] = {}

    @property
    def url(self) -> str:
        return self.address()

    def __repr__(self) -> str:
        return f"Peers({self._folder!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def address(self, name: str = "") -> str:
        """Where roles that talk about `name` meet: a socket of its own for each name, for only one role can bind it."""
        return self._addresses.setdefault(name, f"ipc://{self._folder}/{len(self._addresses)}")

    def restart(self) -> NoReturn:
        """Raises NotInThisDeployment."""
        raise NotInThisDeployment(_NO_BROKER.format(what="be killed and started again"))

    kill = start = stop = restart

    def advance(self, seconds: float) -> NoReturn:
        """Raises NotInThisDeployment."""
        raise NotInThisDeployment(_NO_BROKER.format(what="skip time"))

    def cut(self, *roles: object) -> NoReturn:
        """Raises NotInThisDeployment."""
        raise NotInThisDeployment(_NO_BROKER.format(what="cut connections"))

    def mend(self) -> None:
        """Nothing was cut."""

    def check(self) -> None:
        """Nothing is known to be wrong."""

    def close(self) -> None:
        """The sockets are gone. Idempotent."""
        shutil.rmtree(self._folder, ignore_errors=True)
