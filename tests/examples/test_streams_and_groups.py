"""README.md's section on streams and groups: its programs and commands are run as they stand, its tables are those of the code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import fields

from patterns.wire.configs import GroupConfig, StreamConfig, changes
from patterns.wire.limits import DEDUP_IDS_MAX, TOPICS_CAPTURED_MAX, UNSETTLED_MAX
from tests.processes import Broker

README = (Path(__file__).parents[2] / "README.md").read_text()
SECTION = README[README.index("## Streams and groups\n") :].partition("\n## ")[0]
PROGRAMS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
COMMANDS = re.findall(r"^    (zbroker .*)$", SECTION, re.MULTILINE)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("readme")) as running:
        yield running


def printed(number: int, broker: Broker) -> list[str]:
    source = PROGRAMS[number].replace("zb://localhost", broker.url)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_configuration_is_made_and_changed(broker: Broker) -> None:
    refused, change = printed(0, broker)
    assert refused.startswith("stream 'parcels' is there and differs: messages_max is 1000000, not 2000000;")
    assert change == "messages_max 1000000 -> 2000000 counts now, for what is stored too"


def test_a_group_is_looked_at_reset_and_read_beside(broker: Broker) -> None:
    assert printed(1, broker) == ["100 = 1 + 0 + 0 + 0 + 99", "again from 98 and 1 member", "[97, 98, 99]"]


def test_the_commands_work_as_printed_one_after_the_other(broker: Broker) -> None:
    path = os.pathsep.join([os.fspath(Path(sys.prefix) / "bin"), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "ZBROKER_URL": broker.url}
    assert len(COMMANDS) > 10
    for command in COMMANDS:
        done = subprocess.run(
            command, shell=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=environment,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
        if "--json" in command:
            assert json.loads(done.stdout.splitlines()[0])["body"] == {"user": "ann", "did": "login"}


def _rows(title: str) -> dict[str, list[str]]:
    table = SECTION[SECTION.index(f"| `{title}(") :].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {name.strip("`"): rest for name, *rest in cells}


@pytest.mark.parametrize(
    ("kind", "named"), [(StreamConfig, {"name"}), (GroupConfig, {"stream", "name"})], ids=["stream", "group"]
)
def test_the_tables_have_each_field_its_default_and_when_a_change_counts(kind: Any, named: set[str]) -> None:
    told = _rows(kind.__name__)
    known = {field.name: field for field in fields(kind) if field.name not in named}
    assert list(told) == list(known)
    names = dict.fromkeys(named, "x")
    before = kind(**names)
    others = {bool: lambda old: not old, str: lambda old: f"{old}!", list: lambda old: [1.0]}
    for name, (default, _, counts) in told.items():
        value = getattr(before, name)
        assert default == f"`{json.dumps(value)}`" if isinstance(value, str | list) else default == f"`{value!r}`", name
        other = kind(**names, **{name: others.get(type(value), lambda old: (old or 0) + 1)(value)})
        [(_, _, _, text)] = changes(before, other)
        assert counts == text, name


@pytest.mark.parametrize("limit", [TOPICS_CAPTURED_MAX, DEDUP_IDS_MAX, UNSETTLED_MAX])
def test_the_limits_are_those_of_the_code(limit: int) -> None:
    assert f"at most {limit:,}" in SECTION
