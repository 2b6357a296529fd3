"""Names of streams for the shell's completion: of a broker that answers at once, else none."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

import click

from patterns.wire.errors import ZbrokerError

_ANSWER_S: Final = 0.2  # somebody has pressed a key and waits


def complete_stream(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """The streams whose names begin so."""
    from patterns.sync import Admin

    url = context.params.get("url") or os.environ.get("ZBROKER_URL")
    names: list[str] = []
    with suppress(ZbrokerError):
        admin = Admin(url, timeout_s=_ANSWER_S)
        try:
            names += admin.status().get("streams", {})
        finally:
            admin.close(0)
    return sorted(name for name in names if name.startswith(begun))
