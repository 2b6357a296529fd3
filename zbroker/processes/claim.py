"""That a broker's process lives on a data folder: for another one, which finds the folder locked and need not wait then.

The lock itself is the sidecar's, who may be finishing for a broker that is dead. This one is advice: where it cannot be had or
looked at, one waits as if nobody lived.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import Final

_TRIES: Final = 50
_PAUSE_S: Final = 0.01  # half a second in all: who was just killed lets go of files after his memory


class Claim:
    """A lock on the folder as such, which goes with the process. flock's, since others need a file that is open for writing.

    Args:
        folder: that holds the journal.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._handle: int | None = None

    def is_another(self) -> bool:
        """Whether another broker lives on it; False when that cannot be told."""
        handle = None if self._handle is not None else self._opened()
        if handle is None:
            return False
        try:
            return not self._locked(handle, fcntl.LOCK_SH)  # shared: two who look are not taken for each other
        finally:
            os.close(handle)

    def take(self) -> None:
        """Once the folder is ours, until release() or the end of this process."""
        self._handle = self._opened()
        if self._handle is not None:
            self._locked(self._handle, fcntl.LOCK_EX)

    def release(self) -> None:
        """Nothing if it was never taken."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _opened(self) -> int | None:
        try:
            return os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None

    def _locked(self, handle: int, kind: int) -> bool:
        """False while somebody else has it; True where there are no such locks, too."""
        for _ in range(_TRIES):
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_PAUSE_S)
            except OSError:
                return True
            else:
                return True
        return False
