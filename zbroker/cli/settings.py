"""The settings of a broker as options of a command: `run` uses them, `config show` tells them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from zbroker.cli.exits import BAD_CONFIGURATION, end
from zbroker.config import (
    DRAIN_S_MAX,
    GROUP_IDLE_S_MAX,
    ConfigurationError,
    DuplicateKeys,
    LogFormat,
    LogLevel,
    PlainCodec,
    Settings,
    byte_count,
    check,
    file_places,
    gather,
)

_F = TypeVar("_F", bound=Callable[..., Any])


def _bytes(text: str) -> int:
    try:
        return byte_count(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}") from error


def settings_options(command: _F) -> _F:
    """--config and a flag for each setting; the command hands all of them to settings_of()."""
    for option in reversed((
        click.option("--config", type=click.Path(path_type=Path), envvar="ZBROKER_CONFIG", metavar="F",
                     help="Settings from this file alone.  [$ZBROKER_CONFIG]"),
        click.option("--bind", metavar="ADDRESS",
                     help="Where clients connect; port 0 picks a free one.  [tcp://127.0.0.1:7700]"),
        click.option("--xsub", metavar="ADDRESS|off", help="Where plain ZeroMQ publishers connect.  [tcp://127.0.0.1:7701; off when --bind names another port than 7700]"),
        click.option("--xpub", metavar="ADDRESS|off", help="Where plain ZeroMQ subscribers connect; likewise.  [tcp://127.0.0.1:7702]"),
        click.option("--plain-codec", type=click.Choice(get_args(PlainCodec)),
                     help="What bodies of plain publishers are labelled as; json and msgpack are checked.  [raw]"),
        click.option("--duplicate-keys", type=click.Choice(get_args(DuplicateKeys)),
                     help="Where bodies are translated, of a key that a map has twice: the last wins, or the body is refused.  [last]"),
        click.option("--mdp", metavar="ADDRESS|off", help="For Majordomo clients and workers; not built yet.  [off]"),
        click.option("--http", metavar="ADDRESS|off", help="Health, metrics and pages; not built yet.  [off]"),
        click.option("--data", metavar="DIR", help="Folder of the journal.  [./zbroker-data]"),
        click.option("--no-data", is_flag=True, help="No journal: requests and live topics only."),
        click.option("--insecure", is_flag=True, default=None, help="Allow an address that other machines reach."),
        click.option("--memory-bytes", type=_bytes, metavar="N[K|M|G]",
                     help="Resident memory above which the worst peers are cut; 0: never.  [1G]"),
        click.option("--stream-bytes", type=_bytes, metavar="N[K|M|G]",
                     help="What a stream keeps beyond what its groups have yet to process.  [4G]"),
        click.option("--stream-quota-bytes", type=_bytes, metavar="N[K|M|G]",
                     help="What a stream may keep in all; then its producers must wait; 0: no bound.  [16G]"),
        click.option("--folder-quota-bytes", type=_bytes, metavar="N[K|M|G]",
                     help="What all streams together may; 0: no bound but the disk's.  [0]"),
        click.option("--group-idle-s", type=click.IntRange(0, GROUP_IDLE_S_MAX), metavar="S",
                     help="Delete groups made by first use that had no member for so long; 0: never.  [0]"),
        click.option("--auto-create/--no-auto-create", default=None,
                     help="Whether streams and groups are made by first use.  [auto-create]"),
        click.option("--drain-s", type=click.IntRange(0, DRAIN_S_MAX), metavar="S",
                     help="How long requests under way may finish after SIGTERM.  [5]"),
        click.option("--log-format", type=click.Choice(get_args(LogFormat)),
                     help="Of the lines on standard error.  [text]"),
        click.option("--log-level", type=click.Choice(get_args(LogLevel)), help="The least that is logged.  [info]"),
    )):  # fmt: skip
        command = option(command)
    return command


def settings_of(flags: Mapping[str, Any], show: Callable[[Settings], None] | None = None) -> Settings:
    """The settings that hold; a bad one ends the command with status 78.

    Args:
        flags: what settings_options() gave.
        show: called with settings that could be read, before they are held against what a broker can do.
    """
    rest = dict(flags)
    explicit, no_data = rest.pop("config"), rest.pop("no_data")
    if no_data and rest["data"] is not None:
        raise click.UsageError("--data and --no-data exclude each other")
    if no_data:
        rest["data"] = "off"
    try:
        settings = gather(rest, os.environ, file_places(os.environ), explicit)
        if show is not None:
            show(settings)
        check(settings)
    except ConfigurationError as error:
        end(BAD_CONFIGURATION, str(error))
    return settings
