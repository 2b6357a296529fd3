"""Processes that the tour starts, listens to and ends: its programs, and the broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class ChildFailed(Exception):
    """A program of the demo ended badly; the text has what it said."""


class Child:
    """One process that prints JSON lines.

    Args:
        environment: its variables; None: ours.
    """

    def __init__(self, *command: str, environment: Mapping[str, str] | None = None) -> None:
        self.name = command[0]
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the tour, which then ends its children in order
        )
        self._errors: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def lines(self) -> Iterator[dict[str, Any]]:
        """What it says, until it ends. Raises ChildFailed if that was not well."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)
        status = self._process.wait()
        if status not in (0, -signal.SIGKILL, -signal.SIGTERM):
            self._listener.join(timeout=1.0)
            raise ChildFailed(f"{self.name} ended with status {status}: {''.join(self._errors)[-2_000:]}")

    def line(self) -> dict[str, Any]:
        """The next thing it says. Raises ChildFailed when it ends instead."""
        for said in self.lines():
            return said
        raise ChildFailed(f"{self.name} ended without a word: {''.join(self._errors)[-2_000:]}")

    def kill(self) -> None:
        """SIGKILL, now."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5.0)
            except subprocess.TimeoutExpired:
                self.kill()


def program(name: str, *arguments: str) -> Child:
    """A program of zbroker.demo.programs."""
    return Child("zbroker.demo.programs", name, *arguments)


class Broker:
    """`zbroker run` on a folder of its own; started again, it serves the same address.

    Args:
        arguments: further ones of `zbroker run`.
        environment: its variables; None: ours.
    """

    def __init__(self, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._arguments = arguments
        self._environment = environment
        self._bind = "tcp://127.0.0.1:0"
        self._child: Child | None = None
        self.epoch = 0
        self.xpub = ""  # where plain subscribers connect, in this life

    @property
    def url(self) -> str:
        return self._bind.replace("tcp://", "zb://")

    @property
    def endpoint(self) -> str:
        return self._bind

    def start(self) -> None:
        """Start and wait for the ready line."""
        where = ("--bind", self._bind, "--xpub", "tcp://127.0.0.1:0", "--data", os.fspath(self.folder))
        self._child = Child("zbroker", "run", *where, *self._arguments, "--json", environment=self._environment)
        ready = self._child.line()
        self._bind, self.epoch = ready["addresses"]["native"], ready["epoch"]
        self.xpub = ready["addresses"]["xpub"]

    def kill(self) -> None:
        """SIGKILL: no goodbye, no sync."""
        assert self._child is not None
        self._child.kill()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()
