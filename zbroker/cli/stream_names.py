"""Names of streams and groups for the shell's completion: of a broker that answers at once, else none."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import click

from patterns.wire.errors import ZbrokerError

if TYPE_CHECKING:
    from patterns.sync import Admin

_ANSWER_S: Final = 0.2  # somebody has pressed a key and waits


def complete_stream(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """The streams whose names begin so."""
    return _names(context, begun, lambda admin: admin.list_streams())


def complete_group(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """The groups of the stream before it whose names begin so."""
    stream = context.params.get("stream")
    return _names(context, begun, lambda admin: admin.list_groups(stream)) if stream else []


def _names(context: click.Context, begun: str, ask: Callable[[Admin], list[dict[str, Any]]]) -> list[str]:
    from patterns.sync import Admin

    url = context.params.get("url") or os.environ.get("ZBROKER_URL")
    names: list[str] = []
    with suppress(ZbrokerError):
        admin = Admin(url, timeout_s=_ANSWER_S)
        try:
            names += [str(row.get("name")) for row in ask(admin)]
        finally:
            admin.close(0)
    return sorted(name for name in names if name.startswith(begun))
