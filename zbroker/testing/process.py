"""A real broker for tests: `zbroker run` on a free port of loopback, in a folder that is thrown away."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from patterns.wire.errors import NotInThisDeployment, Unavailable
from zbroker.demo.children import Broker, ChildFailed

_OURS: Final = "ZBROKER_"  # variables that configure a broker: those of who runs the tests are not for this one


class BrokerProcess:
    """A broker with a journal in a process of its own. A context manager; it serves from the start.

    Args:
        settings: keys of `zbroker.toml`; the user's own files and variables do not count.

    Attributes:
        mode: "broker".
        url: for any role of any process of this machine.

    Raises:
        Unavailable: it did not start; the text has what it said.
    """

    mode: Final = "broker"

    def __init__(self, **settings: Any) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="zbroker-"))
        config = self._folder / "zbroker.toml"
        config.write_text("".join(f"{name} = {_toml(value)}\n" for name, value in settings.items()))
        variables = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        self._broker = Broker(self._folder / "data", "--config", os.fspath(config), environment=variables)
        try:
            self._broker.start()
        except ChildFailed as error:
            self.close()
            raise Unavailable(f"a broker with {_shown(settings)} does not start: {error}") from error

    @property
    def url(self) -> str:
        return self._broker.url

    def __repr__(self) -> str:
        return f"BrokerProcess({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def address(self, name: str = "") -> str:
        """Where roles that talk about `name` meet: here, all at the url."""
        return self.url

    def start(self) -> None:
        """Serve at the same url what the journal holds, after kill() or stop()."""
        self._broker.start()

    def kill(self) -> None:
        """SIGKILL."""
        self._broker.kill()

    def stop(self) -> None:
        """SIGTERM; it drains, says goodbye and ends."""
        self._broker.stop()

    def restart(self) -> None:
        """SIGKILL, and another life with the same journal. Roles come back by themselves, soon."""
        self.kill()
        self.start()

    def advance(self, seconds: float) -> NoReturn:
        """Raises NotInThisDeployment: nobody can skip the time of another process."""
        raise NotInThisDeployment("only a broker in memory can skip time: MemoryBroker, or the mode `memory`")

    def cut(self, *roles: object) -> NoReturn:
        """Raises NotInThisDeployment."""
        raise NotInThisDeployment("only a broker in memory can cut connections: MemoryBroker, or the mode `memory`")

    def mend(self) -> None:
        """Nothing was cut."""

    def check(self) -> None:
        """Nothing is known to be wrong."""

    def close(self) -> None:
        """The broker is gone, and its folder with it. Idempotent."""
        self._broker.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _shown(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items()) or "the defaults"


def _toml(value: object) -> str:
    """A setting is a string, a number or a truth."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else f'"{value}"'
