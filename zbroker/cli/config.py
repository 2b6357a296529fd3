"""`zbroker config`: the settings that a broker started here and now would have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from patterns.wire.address import BROKER_PORT
from zbroker.cli.command import ClientCommand
from zbroker.cli.settings import settings_of, settings_options
from zbroker.cli.suggestions import Group
from zbroker.config import Settings


@click.group(cls=Group)
def config() -> None:
    """Show the settings of a broker.

    Flags win over variables ZBROKER_<SETTING>, those over ./zbroker.toml, over ~/.config/zbroker/zbroker.toml
    ($XDG_CONFIG_HOME), over /etc/zbroker/zbroker.toml, over the defaults.
    """


@config.command(cls=ClientCommand, short_help="Print the settings of `zbroker run` here.")
@settings_options
@click.option("--origin", is_flag=True, help="Say where each setting comes from.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(origin: bool, as_json: bool, **flags: Any) -> None:
    """Print the settings that `zbroker run` would have here, with the same flags.

    What is printed is TOML: a zbroker.toml that says the same. Settings that no broker can have are shown too, if they
    are of the right type; then the fault is told, and the exit status is 78. Variables ZBROKER_... that are no setting,
    such as those of a service of this name in Kubernetes, are told as ignored. What "auto" comes to stands behind it (with --origin --json: as `auto`).

    \b
    zbroker config show --origin
    ZBROKER_BIND=tcp://127.0.0.1:7800 zbroker config show --json | jq .bind
    """

    def tell(settings: Settings) -> None:
        if as_json:
            click.echo(json.dumps(_fields(settings, origin=origin)))
        else:
            click.echo("\n".join(_lines(settings, origin=origin)))

    settings_of(flags, tell)


def _fields(settings: Settings, *, origin: bool) -> dict[str, Any]:
    values = msgspec.structs.asdict(settings.options)
    if not origin:
        return values
    return {
        key: {"value": value, "source": settings.origins[key].source, "name": settings.origins[key].name}
        | ({"auto": getattr(settings.options, f"{key}_address") or "off"} if value == "auto" else {})
        for key, value in values.items()
    }


def _lines(settings: Settings, *, origin: bool) -> Iterator[str]:
    for key, value in msgspec.structs.asdict(settings.options).items():
        notes = [str(settings.origins[key])] if origin else []
        notes += [f"auto is {_meaning(settings, key)}"] if value == "auto" else []
        comment = f"  # {'; '.join(notes)}" if notes else ""
        yield f"{key} = {json.dumps(value, ensure_ascii=False)}{comment}"  # printable JSON of one value is TOML too
    if settings.ignored:
        yield f"# ignored, no settings: {', '.join(ascii(name)[1:-1] for name in settings.ignored)}"


def _meaning(settings: Settings, key: str) -> str:
    """What `auto` comes to, with these settings."""
    address: str | None = getattr(settings.options, f"{key}_address")
    return address or f"off, because bind names another port than {BROKER_PORT}"
