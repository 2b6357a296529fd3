"""A file system of a few megabytes in a namespace of its own, for which nobody needs to be root. No test lives here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

NEEDED = ("unshare", "nsenter", "mount")


class NotPermitted(Exception):
    """Why there is none on this machine."""


class SmallDisk:
    """A tmpfs, seen only by who is started with `command` in front; gone with the process that holds it.

    Attributes:
        folder: where it is mounted, for those.
    """

    def __init__(self, folder: Path, size: str) -> None:
        if sys.platform != "linux" or not all(map(shutil.which, NEEDED)):
            raise NotPermitted("a small file system needs Linux with unshare and nsenter")
        folder.mkdir()
        self.folder = folder
        mount = f"mount -t tmpfs -o size={size} tmpfs '{folder}' && echo mounted && exec cat"
        run = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
        self._holder = subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != b"mounted\n":
            self._holder.wait()
            raise NotPermitted(f"namespaces are not permitted here: {self._holder.stderr.read().decode().strip()}")

    @property
    def command(self) -> tuple[str, ...]:
        """In front of a program that is to see it; the program keeps its process id."""
        return ("nsenter", "-t", str(self._holder.pid), "-U", "-m", "--preserve-credentials")

    def run(self, *words: str) -> None:
        """Run a command that sees it. Raises CalledProcessError."""
        subprocess.run([*self.command, *words], check=True, capture_output=True)

    def fill(self, name: str, size: str) -> None:
        """A file of somebody else's."""
        self.run("fallocate", "-l", size, str(self.folder / name))

    def remove(self, name: str) -> None:
        self.run("rm", str(self.folder / name))

    def remount(self, options: str) -> None:
        self.run("mount", "-o", f"remount,{options}", str(self.folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._holder.kill()
        self._holder.communicate()
