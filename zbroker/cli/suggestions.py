"""What was meant by a command or a choice that there is none of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click


def meant(word: str, known: Iterable[str]) -> str:
    """ " Did you mean ..?", or nothing when no known word is near."""
    import difflib  # not for --help

    near = [f"'{one}'" for one in difflib.get_close_matches(word, list(known))]
    return f" Did you mean {' or '.join(near)}?" if near else ""


class Group(click.Group):
    """A group of commands that knows what a misspelled one was to be, as click does for options."""

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As ever. Raises UsageError with the nearest names."""
        name = words[0]
        if not name.startswith("-") and self.get_command(context, name) is None and not context.resilient_parsing:
            context.fail(f"No such command '{name}'.{meant(name, self.list_commands(context))}")
        return super().resolve_command(context, words)


class Choice(click.Choice[str]):
    """One of some words; tells the nearest."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """As ever."""
        if value not in self.choices:
            text = f"{self.get_invalid_choice_message(value, context)}{meant(value, self.choices)}"
            self.fail(text, parameter, context)
        return super().convert(value, parameter, context)
