"""The parent's words: when to begin, for ends that must not begin as soon as they are ready, and when to leave."""

from __future__ import annotations

import threading
from typing import Final

go: Final = threading.Event()


def stay() -> None:
    """Until the parent ends this process, once the other end has what was sent.

    A PUSH that closes its ipc:// connection loses what its peer, at its high-water mark, has not read yet (libzmq 4.3.5, issue 4660).
    """
    threading.Event().wait()
