"""The parent's word to begin, for ends that must not begin as soon as they are ready."""

from __future__ import annotations

import threading
from typing import Final

go: Final = threading.Event()
