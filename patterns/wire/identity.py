"""Who published, as everybody may know it (SPEC.md 8)."""

from __future__ import annotations

import hashlib
from typing import Final

_PUBLISHER_BYTES: Final = 16


def publisher_of(nonce: bytes) -> bytes:
    """The `publisher` of a session's PUBLISHes: each subscriber reads it, and whoever knows a nonce may take its session over."""
    return hashlib.sha256(nonce).digest()[:_PUBLISHER_BYTES]
