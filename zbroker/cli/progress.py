"""A progress bar on standard error of a terminal; nothing in a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click


def shows_progress() -> bool:
    """Whether lines on standard output and a bar on standard error do not meet on one terminal."""
    return not sys.stdout.isatty()


@contextlib.contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields what moves the bar by so many of `total` units; it vanishes at the end."""
    if not sys.stderr.isatty() or total <= 0:
        yield lambda step: None
        return
    with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
        yield bar.update
    click.echo("\x1b[1A\x1b[2K", nl=False, file=sys.stderr)  # the words that follow stand where the bar was
