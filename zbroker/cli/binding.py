"""Who may reach what a command binds: this machine alone, unless somebody says that the network is trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from zbroker.cli.exits import BAD_CONFIGURATION, end

_F = TypeVar("_F", bound=Callable[..., Any])


def insecure_option(command: _F) -> _F:
    """--insecure, for require_trusted()."""
    return click.option("--insecure", is_flag=True, help="Allow to bind an address that other machines reach.")(command)


def require_trusted(name: str, text: str, *, binds: bool, insecure: bool) -> None:
    """End with 78 if any of these addresses is bound where strangers get at it.

    Args:
        name: of the option that says the addresses; stands in the text.
        binds: whether the role binds an address that says neither `@` nor `>`.
        insecure: they may.
    """
    from patterns.wire.address import is_loopback, parse_addresses

    for address in parse_addresses(text):
        is_bound = not address.brokered and (binds if address.binds is None else address.binds)
        if is_bound and not insecure and not is_loopback(address.endpoint):
            end(
                BAD_CONFIGURATION,
                f"{name} = {text!r} can be reached from other machines, and anybody there could read and write; "
                "bind 127.0.0.1, or say --insecure if the network itself is trusted",
            )
