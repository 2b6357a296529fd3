"""`zbroker stream` and `zbroker group` at a real broker: what they print, change, ask, copy and refuse."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from click.testing import CliRunner

from patterns.sync import Admin, Consumer, GroupConfig, Producer, StreamConfig
from patterns.wire.errors import TimedOut
from tests.processes import Broker
from tests.sockets.terminal import Terminal
from zbroker.cli import stream_names
from zbroker.cli.group import group as group_commands
from zbroker.cli.main import main
from zbroker.cli.replay import _Reading
from zbroker.cli.stream import stream as stream_commands

NUMBERS = count()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("streams")) as running:
        yield running


@pytest.fixture
def name() -> str:
    """Of a stream that is not there yet."""
    return f"stream-{next(NUMBERS)}"


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run(broker: Broker, *arguments: str) -> Done:
    """In this process, which is quicker than one of its own; README's commands and those on a terminal have one."""
    words = [*arguments, "--url", broker.url, "--timeout", "30"]
    result = CliRunner().invoke(main, words, env={"ZBROKER_URL": None})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


def objects(broker: Broker, *arguments: str) -> list[dict[str, Any]]:
    done = run(broker, *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def filled(broker: Broker, name: str, bodies: list[Any], codec: str = "json") -> None:
    with Producer(broker.url, name, codec=codec) as producer:
        producer.send_many(bodies)


def test_a_stream_is_made_listed_shown_and_changed(broker: Broker, name: str) -> None:
    words = ("stream", "create", name, "--retention", "work", "--messages-max", "1000", "--topic", f"{name}.>")
    foreseen = run(broker, *words, "--dry-run")
    assert foreseen.stderr == f"zbroker: stream '{name}' would be made\n"
    assert run(broker, "stream", "show", name).returncode == 1
    assert objects(broker, *words) == [{"name": name, "created": True, "changes": [], "dry_run": False}]
    assert run(broker, *words).stderr == f"zbroker: stream '{name}' is there already, with this configuration\n"
    assert name in [row["name"] for row in objects(broker, "stream", "list")]
    refused = run(broker, "stream", "create", name)
    assert refused.returncode == 77
    assert "retention is 'work', not 'limits'" in refused.stderr
    changed = run(broker, "stream", "create", name, "--messages-max", "none", "--change")
    assert changed.returncode == 0
    assert re.search(r"^messages_max +1000 +none +now, for what is stored too$", changed.stdout, re.MULTILINE)
    [shown] = objects(broker, "stream", "show", name)
    kept = (shown["config"]["retention"], shown["config"]["topics"], shown["config"]["messages_max"])
    assert kept == ("work", [f"{name}.>"], None)


def test_a_configuration_goes_from_one_stream_to_another(broker: Broker, name: str, tmp_path: Path) -> None:
    run(broker, "stream", "create", name, "--dedup-s", "5m", "--confirm-min", "durable")
    [shown] = objects(broker, "stream", "show", name)
    del shown["config"]["name"]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(shown["config"]))
    assert run(broker, "stream", "create", f"{name}-b", "--config", str(file), "--dedup-ids-max", "5").returncode == 0
    [other] = objects(broker, "stream", "show", f"{name}-b")
    assert other["config"] == {**shown["config"], "name": f"{name}-b", "dedup_ids_max": 5}
    file.write_text("colour = 'red'\n")
    unknown = run(broker, "stream", "create", f"{name}-c", "--config", str(file))
    assert (unknown.returncode, "'colour' is not a field of StreamConfig" in unknown.stderr) == (2, True)


def test_a_group_is_made_shown_paused_and_reset(broker: Broker, name: str) -> None:
    filled(broker, name, list(range(10)))
    made = run(broker, "group", "create", name, "g", "--from", "2", "--backoff-s", "1,1m", "--exclusive")
    assert made.stderr == f"zbroker: group 'g' of stream '{name}' is made\n"
    [row] = objects(broker, "group", "list", name)
    assert (row["start"], row["pending"], row["lag"]) == (2, 8, 8)
    assert row["accepted"] == row["acked"] + row["dead"] + row["expired"] + row["lost"] + row["pending"]
    paused = run(broker, "group", "pause", name, "g").stderr
    assert paused == f"zbroker: group 'g' of stream '{name}' is paused: its members are given nothing more\n"
    assert "is paused already" in run(broker, "group", "pause", name, "g").stderr
    assert run(broker, "group", "resume", name, "g").stderr.endswith(f"group 'g' of stream '{name}' goes on\n")
    assert "was not paused, and goes on\n" in run(broker, "group", "resume", name, "g").stderr
    assert objects(broker, "group", "reset", name, "g", "--from", "7")[0]["start"] == 7
    assert objects(broker, "group", "reset", name, "g", "--from", "2000-01-01T00:00:00Z")[0]["start"] == 0
    assert objects(broker, "group", "reset", name, "g", "--from", "2999-01-01")[0]["start"] == 10
    assert objects(broker, "group", "reset", name, "g")[0]["start"] == 2
    text = run(broker, "group", "show", name, "g").stdout
    assert re.search(r"^backoff_s +1 s, 1 min 0 s$", text, re.MULTILINE)
    assert re.search(r"^oldest *\noffset +2$", text, re.MULTILINE)


def test_a_change_of_a_group_keeps_what_is_not_said(broker: Broker, name: str) -> None:
    run(broker, "group", "create", name, "g", "--max-deliveries", "5", "--dead-letter", "dead", "--from", "2026-01-31")
    assert run(broker, "group", "create", name, "g", "--lease-s", "10", "--change").returncode == 0
    [shown] = objects(broker, "group", "show", name, "g")
    assert (shown["config"]["max_deliveries"], shown["config"]["lease_s"]) == (5, 10.0)
    assert shown["config"]["start"].startswith("2026-01-3")


def test_who_holds_the_oldest_message_is_shown(broker: Broker, name: str) -> None:
    filled(broker, name, ["a"])
    with Consumer(broker.url, name, group="g") as consumer:
        assert consumer.receive(30) is not None
        [shown] = objects(broker, "group", "show", name, "g")
        text = run(broker, "group", "show", name, "g").stdout
    holder = shown["oldest"]["holder"]["session"]
    assert re.search(rf"^held by +{holder}$", text, re.MULTILINE)
    assert re.search(rf"^{holder} +1 +ready$", text, re.MULTILINE)


def test_a_replay_prints_a_part_and_leaves_no_trace(broker: Broker, name: str) -> None:
    filled(broker, name, list(range(100)))
    found = objects(broker, "stream", "replay", name, "--from", "90", "--until", "95")
    assert [(one["offset"], one["body"]) for one in found] == [(offset, offset) for offset in range(90, 95)]
    assert set(found[0]) == {"offset", "published_at", "topic", "key", "headers", "body"}
    again = objects(broker, "stream", "replay", name, "--from", found[0]["published_at"], "--count", "3")
    assert [one["offset"] for one in again] == [0, 1, 2]
    assert objects(broker, "stream", "replay", name, "--until", "2000-01-01") == []
    assert objects(broker, "stream", "replay", name, "--from", "2999-01-01") == []
    assert objects(broker, "stream", "replay", name, "--from", "100") == []
    assert run(broker, "stream", "replay", name).stdout == "".join(f"{number}\n" for number in range(100))
    assert objects(broker, "group", "list", name) == []


def test_a_copy_has_every_codec_key_header_and_id_in_order(broker: Broker, name: str) -> None:
    filled(broker, name, [1, {"a": 1.0}])
    filled(broker, name, [{"b": b"\x00"}, [None]], "msgpack")
    with Producer(broker.url, name, codec="raw") as producer:
        producer.send(b"\xff\x00", key="k", headers={"h": "1"}, message_id="id-1")
    filled(broker, name, ["last"])
    assert objects(broker, "stream", "replay", name, "--from", "1", "--to", f"{name}-copy")[0]["copied"] == 5
    with Consumer(broker.url, name, codec="raw") as one, Consumer(broker.url, f"{name}-copy", codec="raw") as other:
        stored = [one.receive(30) for _ in range(6)][1:]
        copied = [other.receive(30) for _ in range(5)]
    assert [(c.raw, c.codec, c.key, c.headers, c.message_id) for c in copied if c] == [
        (s.raw, s.codec, s.key, s.headers, s.message_id) for s in stored if s
    ]
    assert [c.codec for c in copied if c] == ["json", "msgpack", "msgpack", "raw", "json"]


def test_a_copy_shows_a_bar_on_a_terminal_alone(broker: Broker, name: str) -> None:
    filled(broker, name, list(range(2_000)))
    piped = run(broker, "stream", "replay", name, "--to", f"{name}-a")
    assert piped.stderr == f"zbroker: 2000 messages copied from '{name}' to '{name}-a'\n"
    with Terminal("stream", "replay", name, "--to", f"{name}-b", "--url", broker.url) as terminal:
        assert terminal.end() == 0
        assert b"replaying" in terminal.drawn
        assert b"2000 messages copied" in terminal.drawn


@pytest.mark.parametrize(
    "words",
    [("stream", "show", "nosuch"), ("stream", "replay", "nosuch"), ("group", "list", "nosuch"), ("group", "show", "nosuch", "g"),
     ("group", "pause", "nosuch", "g"), ("group", "reset", "nosuch", "g")],
)  # fmt: skip
def test_an_unknown_name_is_told_and_makes_nothing(broker: Broker, words: tuple[str, ...]) -> None:
    done = run(broker, *words, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert json.loads(done.stderr)["error"]["name"] == "NO_SUCH_STREAM"
    assert "nosuch" not in [row["name"] for row in objects(broker, "stream", "list")]


@pytest.mark.parametrize(
    "words",
    [("stream", "create", "s", "--age-max-s", "-1"), ("stream", "create", "s", "--age-max-s", "36525d"),
     ("stream", "create", "s", "--dedup-s", "nan"), ("stream", "create", "s", "--quota-bytes", "8388607T"),
     ("stream", "create", "s", "--messages-max", str(2**63)), ("group", "create", "s", "g", "--lease-s", "0"),
     ("group", "create", "s", "g", "--backoff-s", "-1"), ("group", "create", "s", "g", "--backoff-s", "36525d"),
     ("group", "create", "s", "g", "--max-deliveries", "1"), ("group", "create", "s", "g", "--dead-letter", "s"),
     ("group", "create", "s", "g", "--from", str(2**63)), ("stream", "create", "s", "--topic", "orders.#")],
)  # fmt: skip
def test_values_that_cannot_be_are_wrong_usage(broker: Broker, words: tuple[str, ...]) -> None:
    done = run(broker, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert "s" not in [row["name"] for row in objects(broker, "stream", "list")]


def test_a_replay_from_beyond_the_end_is_told(broker: Broker, name: str) -> None:
    filled(broker, name, [1, 2])
    done = run(broker, "stream", "replay", name, "--from", "3")
    assert (done.returncode, done.stderr) == (
        2,
        f"zbroker: --from 3 lies beyond the next offset 2 of stream '{name}'\n",
    )


def test_on_a_terminal_it_is_asked_before_anything_is_thrown_away(broker: Broker, name: str) -> None:
    filled(broker, name, list(range(3)))
    run(broker, "group", "create", name, "g")
    for words, question in (
        (("stream", "delete", name), b"with 3 messages"),
        (("stream", "purge", name), b"all of the 3 messages"),
        (("group", "delete", name, "g"), b"3 messages that it has not settled"),
    ):
        with Terminal(*words, "--url", broker.url, columns=300) as terminal:
            terminal.read_until(lambda drawn, words=question: words in drawn and b"[y/N]" in drawn)  # type: ignore[misc]
            terminal.press(b"n\n")
            assert terminal.end() == 1
            assert b"nothing was done" in terminal.drawn
    assert objects(broker, "stream", "show", name)[0]["groups"] == 1


def test_what_is_thrown_away_is_told(broker: Broker, name: str) -> None:
    filled(broker, name, list(range(10)))
    run(broker, "group", "create", name, "g")
    purged = run(broker, "stream", "purge", name, "--keep", "4", "--yes")
    assert purged.stderr == f"zbroker: 6 messages thrown away; stream '{name}' begins at offset 6\n"
    [row] = objects(broker, "group", "list", name)
    assert (row["expired"], row["pending"]) == (6, 4)
    assert [one["offset"] for one in objects(broker, "stream", "replay", name)] == [6, 7, 8, 9]
    assert objects(broker, "stream", "purge", name, "--before", "8", "--yes")[0]["purged"] == 2
    assert objects(broker, "stream", "purge", name, "--before", "2000-01-01", "--yes")[0]["purged"] == 0
    assert run(broker, "stream", "purge", name, "--before", "11", "--yes").returncode == 2
    assert "it had not settled 2 messages" in run(broker, "group", "delete", name, "g", "--yes").stderr
    assert run(broker, "group", "delete", name, "g", "--yes").returncode == 1
    gone = run(broker, "stream", "delete", name, "--yes")
    assert gone.stderr == f"zbroker: stream '{name}' is deleted, with 2 messages and 0 groups\n"
    assert run(broker, "stream", "show", name).returncode == 1
    filled(broker, name, ["new"])
    assert [one["offset"] for one in objects(broker, "stream", "replay", name)] == [0]


def test_a_yes_on_a_terminal_deletes(broker: Broker, name: str) -> None:
    filled(broker, name, [1])
    with Terminal("stream", "delete", name, "--url", broker.url, columns=300) as terminal:
        terminal.read_until(lambda drawn: b"[y/N]" in drawn)
        terminal.press(b"y\n")
        assert terminal.end() == 0
    assert run(broker, "stream", "show", name).returncode == 1


def test_a_replay_ends_though_what_it_was_to_read_is_gone(broker: Broker, name: str) -> None:
    filled(broker, name, list(range(5)))
    with Admin(broker.url, timeout_s=30) as admin, Consumer(broker.url, name, start=2) as consumer:
        found = _Reading(admin, consumer, name, broker.url, range(2, 5), None, 0.2)
        messages = found.messages(None)
        assert next(messages).offset == 2
        consumer.receive(30)
        consumer.receive(30)  # as if they had not come
        with pytest.raises(TimedOut, match="at offset 3"):
            next(messages)
        admin.purge_stream(name)
        assert list(found.messages(None)) == []


def test_the_shell_completes_streams_and_groups(broker: Broker, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(stream_names, "_ANSWER_S", 30.0)  # this machine may be busy; a person's is not
    with Admin(broker.url, timeout_s=30) as admin:
        admin.create_stream(StreamConfig(name))
        admin.create_group(GroupConfig(name, "billing"))
    for commands in (stream_commands, group_commands):
        show = commands.commands["show"]
        context = click.Context(show)
        context.params.update(url=broker.url, stream=name)
        assert name in [one.value for one in show.params[0].shell_complete(context, name)]
    assert [one.value for one in show.params[1].shell_complete(context, "bil")] == ["billing"]
