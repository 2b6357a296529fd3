"""What README.md says of the constructors is what they take."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import patterns.aio
import patterns.sync

README = (Path(__file__).parents[2] / "README.md").read_text()
ROLES = ("Requester", "Replier", "Publisher", "Subscriber", "Producer", "Consumer", "Admin")


def parameters_of(role: type) -> list[inspect.Parameter]:
    return list(inspect.signature(role).parameters.values())


def written(parameter: inspect.Parameter) -> str:
    """As a person writes it: `credit=1000`, `*patterns`."""
    if parameter.kind is parameter.VAR_POSITIONAL:
        return f"*{parameter.name}"
    if parameter.default is parameter.empty:
        return parameter.name
    default = "Any" if parameter.default is Any else repr(parameter.default).replace("'", '"')
    return f"{parameter.name}={default}"


@pytest.mark.parametrize("role", ROLES)
def test_a_constructor_is_shown_with_its_arguments_and_defaults(role: str) -> None:
    parameters = parameters_of(getattr(patterns.sync, role))
    shown = re.search(rf"^    {role}\((.*)\)$", README, re.MULTILINE)
    assert shown
    assert [one for one in shown[1].split(", ") if one != "*"] == [written(one) for one in parameters]


@pytest.mark.parametrize("role", ROLES)
def test_each_argument_is_explained_where_people_look(role: str) -> None:
    for shell in (patterns.sync, patterns.aio):
        help_text = inspect.getdoc(getattr(shell, role)) or ""
        for parameter in parameters_of(getattr(shell, role)):
            assert re.search(rf"^    {parameter.name}: ", help_text, re.MULTILINE), f"help({role}): {parameter.name}"
            assert re.search(rf"^\| .*`\*?{parameter.name}`|`{parameter.name}=", README, re.MULTILINE), parameter.name


def test_each_extra_for_people_is_named() -> None:
    for extra in ("demo", "bench"):
        assert f"'.[{extra}]'" in README
