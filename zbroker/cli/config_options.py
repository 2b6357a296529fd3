"""The fields of StreamConfig and GroupConfig as flags of a command: what was said, and what is said nowhere."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from patterns.wire.configs import CONFIRM_LEVELS
from zbroker.cli.exits import BAD_CONFIGURATION, end
from zbroker.config import byte_count

_F = TypeVar("_F", bound=Callable[..., Any])
_NONE: Final = "none"  # as a value: the field's None, which is another thing than not saying it
_FACTORS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_FILE_BYTES_MAX: Final = 64 << 10  # as of a settings file; whoever has 1,024 topics of 50 bytes comes to here


class Nothing:
    """What `none` stands for on the command line."""


def stream_config_options(command: _F) -> _F:
    """A flag for each field of StreamConfig; what is not said is None, and given() leaves it out."""
    return _with(command, (
        click.option("--topic", "topics", multiple=True, metavar="PATTERN",
                     help="Store live messages of this topic as well; several times for several patterns.  [none]"),
        click.option("--no-topics", is_flag=True, help="Store no live messages; with --change."),
        click.option("--retention", type=click.Choice(["limits", "work"]),
                     help="limits: beyond its bounds the oldest messages go. work: a message goes when every group has settled it.  [limits]"),
        click.option("--age-max-s", type=_optional(span), metavar="S", help="Of limits: older messages go. 3600, 90m, 36h, 7d, or none.  [none]"),
        click.option("--bytes-max", type=_optional(_bytes), metavar="N[K|M|G]",
                     help="What it may hold: of limits, then the oldest go; of work, then producers are refused. Or none.  [none: the broker's stream_bytes]"),
        click.option("--messages-max", type=_optional(int), metavar="N", help="The same in messages, or none.  [none]"),
        click.option("--keep-unsettled/--drop-unsettled", default=None,
                     help="Of limits: whether what a group has not settled stays, bounds or not.  [keep]"),
        click.option("--overflow", type=click.Choice(["reject"]), help="Of work: what happens at the bounds.  [reject]"),
        click.option("--quota-bytes", type=_optional(_bytes), metavar="N[K|M|G]",
                     help="What it may take on disk, whatever for; then producers are refused. Or none.  [none: the broker's stream_quota_bytes]"),
        click.option("--dedup-s", type=span, metavar="S", help="So long a message id is remembered; 0: not at all.  [120]"),
        click.option("--dedup-ids-max", type=int, metavar="N", help="And so many of them.  [100000]"),
        click.option("--confirm-min", type=click.Choice(CONFIRM_LEVELS), help="The weakest level that producers may ask for.  [received]"),
    ))  # fmt: skip


def group_config_options(command: _F) -> _F:
    """A flag for each field of GroupConfig."""
    return _with(command, (
        click.option("--from", "start", type=_start, metavar="first|new|OFFSET|TIME",
                     help="Where it begins, when it is made or reset. TIME is ISO 8601; without a zone, this machine's.  [first]"),
        click.option("--lease-s", type=span, metavar="S", help="Without progress of its member a lease ends after this.  [30]"),
        click.option("--processing-max-s", type=_optional(span), metavar="S",
                     help="So long a handler may compute, where its Consumer says nothing else. Or none.  [none: an hour]"),
        click.option("--max-deliveries", type=int, metavar="N", help="After so many failed ones a message goes to --dead-letter; 0: never.  [0]"),
        click.option("--backoff-s", type=_spans, metavar="S,S,..",
                     help="How long a message waits after its first, second, .. failed delivery; the last counts for all further. Or none.  [none]"),
        click.option("--dead-letter", metavar="STREAM", help="Where rejected messages, and those beyond --max-deliveries, go. '': nowhere.  ['']"),
        click.option("--unsettled-max", type=int, metavar="N", help="Lent, delayed and failed ones together; then nothing new is lent.  [1000000]"),
        click.option("--exclusive/--shared", default=None, help="One member at a time, another takes over; or all of them.  [shared]"),
        click.option("--idle-expiry-s", type=_optional(span), metavar="S", help="Without members for so long it is deleted. Or none.  [none]"),
    ))  # fmt: skip


def making_options(command: _F) -> _F:
    """--config, --dry-run and --change: of the commands that make something."""
    return _with(command, (
        click.option("--config", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="F",
                     help="Fields from a file of TOML or JSON, as `show --json` has them under `config`; flags win over it."),
        click.option("--dry-run", is_flag=True, help="Say what would happen, and do nothing."),
        click.option("--change", is_flag=True,
                     help="Change what is there; what neither flags nor --config say stays as it is."),
    ))  # fmt: skip


def _with(command: _F, options: tuple[Callable[[_F], _F], ...]) -> _F:
    for option in reversed(options):
        command = option(command)
    return command


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were said."""
    said = {name: value for name, value in flags.items() if value is not None and value != ()}
    if said.pop("no_topics", False):
        if "topics" in said:
            raise click.UsageError("--topic and --no-topics exclude each other")
        said["topics"] = []
    fields = {name: None if value is Nothing else value for name, value in said.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def from_file(file: Path | None, names: Mapping[str, str]) -> dict[str, Any]:
    """The fields that a file says; what is wrong with it ends the command with 78.

    Args:
        names: what the command line says of it: the file may say the same, or nothing.
    """
    if file is None:
        return {}
    try:
        with file.open("rb") as source:
            text = source.read(_FILE_BYTES_MAX + 1)
        if len(text) > _FILE_BYTES_MAX:
            raise ValueError(f"longer than {_FILE_BYTES_MAX} bytes")
        found = _decoded(text, is_json=text.lstrip()[:1] == b"{")
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        end(BAD_CONFIGURATION, f"{file}: {error}")
    for name, value in names.items():
        if found.setdefault(name, value) != value:
            end(BAD_CONFIGURATION, f"{file}: {name} = {found[name]!r}, and the command line says {value!r}")
    return {name: value for name, value in found.items() if name not in names}


def _decoded(text: bytes, *, is_json: bool) -> dict[str, Any]:
    if is_json:
        return msgspec.json.decode(text, type=dict[str, Any])
    return tomllib.loads(text.decode())


def span(text: str) -> float:
    """Seconds as people write them: 90, 1.5, 90m, 36h, 7d; what is too long or too short the configuration says itself."""
    number, factor = (text[:-1], _FACTORS[text[-1]]) if text[-1:] in _FACTORS else (text, 1)
    try:
        return float(number) * factor
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no time such as 90, 1.5, 90m, 36h or 7d") from error


def _spans(text: str) -> list[float]:
    return [] if text == _NONE else [span(one.strip()) for one in text.split(",")]


def _bytes(text: str) -> int:
    try:
        return byte_count(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}") from error


def _start(text: str) -> Any:
    from zbroker.cli.receive import start_of

    return start_of(text)


def _optional(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        if text == _NONE:
            return Nothing
        try:
            return kind(text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is neither a whole number nor `none`") from error

    return convert
