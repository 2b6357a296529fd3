"""Flags for configurations: one for each field, with the default in its help; what is not said is not said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner

from patterns.wire.configs import GroupConfig, StreamConfig, config_of
from zbroker.cli.config_options import (
    from_file,
    given,
    group_config_options,
    span,
    stream_config_options,
)
from zbroker.cli.exits import BAD_CONFIGURATION
from zbroker.cli.main import main


def parsed(*arguments: str, options: Any = stream_config_options) -> dict[str, Any]:
    found: dict[str, Any] = {}

    @click.command()
    @options
    def command(**flags: Any) -> None:
        found.update(given(flags))

    result = CliRunner().invoke(command, arguments)
    if result.exit_code:
        raise click.UsageError(result.output)
    return found


@pytest.mark.parametrize(
    ("command", "kind", "named"),
    [(("stream", "create"), StreamConfig, {"name"}), (("group", "create"), GroupConfig, {"stream", "name"})],
)
def test_each_field_has_a_flag_whose_help_tells_the_default(
    command: tuple[str, str], kind: Any, named: set[str]
) -> None:
    group = main.get_command(click.Context(main), command[0])
    assert isinstance(group, click.Group)
    options = {one.name: one for one in group.commands[command[1]].params if isinstance(one, click.Option)}
    for field in msgspec.structs.fields(kind):
        if field.name not in named:
            assert (options[field.name].help or "").endswith("]"), field.name


def test_what_is_not_said_is_left_out() -> None:
    assert parsed() == {}
    assert parsed(options=group_config_options) == {}


def test_all_fields_of_a_stream_can_be_said() -> None:
    found = parsed(
        *("--topic", "a.>", "--topic", "b", "--retention", "work", "--age-max-s", "7d", "--bytes-max", "4G"),
        *(
            "--messages-max",
            "10",
            "--drop-unsettled",
            "--overflow",
            "reject",
            "--quota-bytes",
            "1M",
            "--dedup-s",
            "90m",
        ),
        *("--dedup-ids-max", "5", "--confirm-min", "written"),
    )
    assert found == {
        "topics": ["a.>", "b"], "retention": "work", "age_max_s": 604_800.0, "bytes_max": 4 << 30, "messages_max": 10,
        "keep_unsettled": False, "overflow": "reject", "quota_bytes": 1 << 20, "dedup_s": 5_400.0, "dedup_ids_max": 5,
        "confirm_min": "written",
    }  # fmt: skip
    assert set(found) == {field.name for field in msgspec.structs.fields(StreamConfig)} - {"name"}


def test_all_fields_of_a_group_can_be_said() -> None:
    found = parsed(
        *("--from", "new", "--lease-s", "10", "--processing-max-s", "none", "--max-deliveries", "3", "--exclusive"),
        *("--backoff-s", "1,2.5,1m", "--dead-letter", "dead", "--unsettled-max", "7", "--idle-expiry-s", "1h"),
        options=group_config_options,
    )
    assert set(found) == {field.name for field in msgspec.structs.fields(GroupConfig)} - {"stream", "name"}
    assert (found["processing_max_s"], found["backoff_s"]) == (None, [1.0, 2.5, 60.0])
    config_of(GroupConfig, {"stream": "s", "name": "g", **found})


def test_none_is_a_value_of_what_may_have_none() -> None:
    assert parsed("--age-max-s", "none", "--bytes-max", "none", "--no-topics") == {
        "age_max_s": None, "bytes_max": None, "topics": [],
    }  # fmt: skip
    assert parsed("--backoff-s", "none", "--dead-letter", "", options=group_config_options) == {
        "backoff_s": [], "dead_letter": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--age-max-s", "soon"), "7d"),
        (("--age-max-s", ""), "7d"),
        (("--dedup-s", "none"), "7d"),
        (("--bytes-max", "4GB"), "K, M or G"),
        (("--messages-max", "many"), "`none`"),
        (("--retention", "forever"), "limits"),
        (("--topic", "a", "--no-topics"), "exclude"),
    ],
)
def test_what_is_no_value_is_told(arguments: tuple[str, ...], text: str) -> None:
    with pytest.raises(click.UsageError) as refused:
        parsed(*arguments)
    assert text in str(refused.value)


def test_a_span_has_a_unit() -> None:
    assert [span(text) for text in ("0", "1.5", "90s", "2m", "3h", "1d")] == [0, 1.5, 90, 120, 10_800, 86_400]


@pytest.mark.parametrize("text", ['name = "orders"\nretention = "work"\n', json.dumps({"retention": "work"})])
def test_a_file_says_fields(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    assert from_file(file, {"name": "orders"}) == {"retention": "work"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b'name = "invoices"', "the command line says 'orders'"),
        (b"{", "truncated"),
        (b"retention", "config"),
        (b"\xff\xfe", "utf-8"),
        (b"# " + b"x" * 70_000, "longer than 65536 bytes"),
        (b"{" * 100_000, "longer"),
        (b'{"a":' * 12_000, "config"),
    ],
)
def test_a_bad_file_is_a_bad_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes, complaint: str
) -> None:
    file = tmp_path / "config"
    file.write_bytes(text)
    with pytest.raises(SystemExit) as left:
        from_file(file, {"name": "orders"})
    assert left.value.code == BAD_CONFIGURATION
    assert complaint in capsys.readouterr().err
