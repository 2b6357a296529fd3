from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
from click.testing import CliRunner

from zbroker.cli.main import COMMANDS, main


def test_help_lists_every_command_without_importing_zmq():
    code = (
        "import sys\nfrom zbroker.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('zmq' in sys.modules, 'zbroker.cli.run' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.endswith("False False\n")
    for name in COMMANDS:
        assert name in done.stdout


def test_an_unknown_command_is_wrong_usage():
    assert CliRunner().invoke(main, ["runn"]).exit_code == 2


def test_data_and_no_data_exclude_each_other():
    done = CliRunner().invoke(main, ["run", "--data", "x", "--no-data"])
    assert done.exit_code == 2
    assert "exclude each other" in done.output


def _groups(command: click.Command) -> Iterator[click.Group]:
    if isinstance(command, click.Group):
        yield command
        for name in command.list_commands(click.Context(command)):
            yield from _groups(command.get_command(click.Context(command), name))


def test_no_command_is_described_by_half_a_sentence():
    for group in _groups(main):
        for line in group.get_help(click.Context(group, terminal_width=80)).splitlines()[1:]:
            assert not line.endswith("..."), line
