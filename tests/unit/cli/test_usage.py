"""Wrong usage is told before anything is connected: status 2, and a text that helps."""

import json

import pytest
from click.testing import CliRunner, Result

from zbroker.cli.exits import BAD_CONFIGURATION, REFUSED, USAGE
from zbroker.cli.main import COMMANDS, PLANNED, main

ZB = ("--url", "zb://127.0.0.1:1")


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"ZBROKER_URL": None, **environment}, prog_name="zbroker")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("pub", "t", "hello", *ZB), "is not JSON"),
        (("pub", "t", "hello", *ZB), "--raw"),
        (("request", "s", "{", *ZB), "is not JSON"),
        (("send", "s", "nope", *ZB), "is not JSON"),
        (("pub", "", "1", *ZB), "topic name of 0 bytes"),
        (("pub", "a..b", "1", *ZB), "none empty"),
        (("sub", "a.>.b", *ZB), "last only"),
        (("request", "a b", "1", *ZB), "white space"),
        (("receive", "", *ZB), "stream name of 0 bytes"),
        (("receive", "s", "--group", "*", *ZB), "group name"),
        (("receive", "s", "--from", "yesterday", *ZB), "2026-01-31"),
        (("receive", "s", "--count", "-1", *ZB), "1<=x<="),
        (("sub", "a", "--count", "0", *ZB), "1<=x<="),
        (("sub", "a", "--timeout", "nan", *ZB), "number of seconds"),
        (("sub", "a", "--timeout", "-1", *ZB), "number of seconds"),
        (("sub", "a", "--timeout", "inf", *ZB), "number of seconds"),
        (("sub", "a", "--overflow", "block", *ZB), "drop_oldest"),
        (("request", "s", "1", "--timeout", "0", *ZB), "more than 0"),
        (("send", "s", *ZB), "--file F"),
        (("send", "s", "1", "--file", "/dev/null", *ZB), "--file F"),
        (("send", "s", "--file", "/nowhere", *ZB), "does not exist"),
        (("reply", "s", "--echo", "--command", "cat", *ZB), "exclude each other"),
        (("status", "--raw", *ZB), "No such option '--raw'"),
        (("top", "--raw", *ZB), "No such option '--raw'"),
        (("send", "s", "1"), "ZBROKER_URL"),
        (("send", "s", "1", "--url", "tcp://127.0.0.1:1"), "needs a broker"),
        (("receive", "s", "--url", "ipc://x"), "needs a broker"),
        (("status", "--url", "ipc://x"), "needs a broker"),
        (("pub", "t", "1", "--url", "http://x"), "must begin with one of zb://, zb+ipc://, tcp://, ipc://\n"),
        (("send", "t", "1", "--url", "http://x"), "must begin with one of zb://, zb+ipc://\n"),
        (("reply", "t", "--url", "inproc://x"), "must begin with one of"),
        (("pbu", "t", "1"), "No such command 'pbu'. Did you mean 'pub'"),
        (("store", "verfy", "x"), "Did you mean 'verify'?"),
        (("bench", "compar"), "Did you mean 'compare'?"),
        (("device", "fowarder"), "Did you mean 'forwarder'?"),
        (("device", "--frontend", "zb://x", "fowarder"), "Did you mean 'forwarder'?"),
        (("device", "queue", "--frontend", "zb://x"), "must begin with one of tcp://, ipc://;"),
        (("completion", "tcsh"), "bash"),
        (("stream", "create", "", *ZB), "stream name of 0 bytes"),
        (("stream", "create", "x" * 256, *ZB), "stream name of 256 bytes"),
        (("stream", "show", "../../etc", *ZB), "'/'"),
        (("stream", "delete", "..", *ZB), "not '.' or '..'"),
        (("stream", "delete", "s", *ZB), "say --yes"),
        (("stream", "purge", "s", *ZB), "say --yes"),
        (("stream", "purge", "s", "--yes", "--keep", "1", "--before", "1", *ZB), "exclude each other"),
        (("stream", "purge", "s", "--yes", "--keep", "-1", *ZB), "x>=0"),
        (("stream", "purge", "s", "--yes", "--before", "new", *ZB), "neither an offset nor a time"),
        (("stream", "replay", "s", "--from", "new", *ZB), "receive --from new"),
        (("stream", "replay", "s", "--until", "first", *ZB), "neither an offset nor a time"),
        (("stream", "replay", "s", "--to", "s", *ZB), "zbroker group reset"),
        (("stream", "replay", "s", "--to", "a/b", *ZB), "stream name"),
        (("stream", "creat", "s", *ZB), "Did you mean 'create'?"),
        (("stream", "list"), "ZBROKER_URL"),
        (("stream", "list", "--url", "tcp://127.0.0.1:1"), "needs a broker"),
        (("group", "create", "s", "", *ZB), "group name of 0 bytes"),
        (("group", "create", "s", "é" * 128, *ZB), "group name of 256 bytes"),
        (("group", "create", "s", *ZB), "Missing argument 'GROUP'"),
        (("group", "create", "s", "g", "--backoff-s", "1,,2", *ZB), "no time such as"),
        (("group", "reset", "s", "g", "--from", "yesterday", *ZB), "2026-01-31"),
        (("group", "delete", "s", "g", *ZB), "say --yes"),
        (("group", "list", "a b", *ZB), "white space"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], text: str) -> None:
    result = run(*arguments)
    assert result.exit_code == USAGE
    assert text in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "url", ["htp://x", "zb://user@localhost", "zb://u%zz@h", "zb://ü@h", "tcp://127.0.0.1:1", "zb://h:99999"]
)
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_bad_address_of_the_environment_is_a_bad_configuration(url: str, more: tuple[str, ...]) -> None:
    result = run("status", *more, ZBROKER_URL=url)
    assert result.exit_code == BAD_CONFIGURATION
    assert "ZBROKER_URL" in result.stderr
    assert run("status", *more, "--url", url).exit_code == USAGE


def test_who_reads_json_finds_nothing_else_on_standard_error() -> None:
    result = run("send", "s", "1", "--json", "--timeout", "1.2", *ZB)
    told = [json.loads(line) for line in result.stderr.splitlines()]
    assert [set(one) for one in told[:-1]] == [{"note"}] * (len(told) - 1)
    assert told[-1]["error"]["name"] == "UNAVAILABLE"


@pytest.mark.parametrize(
    "arguments",
    [
        ("reply", "s", "--url", "tcp://0.0.0.0:0"), ("reply", "s", "--url", "tcp://*:0"), ("pub", "t", "1", "--url", "tcp://[::]:0"),
        ("sub", "t", "--url", "@tcp://0.0.0.0:0"), ("request", "s", "1", "--url", "tcp://127.0.0.1:1,@tcp://*:0"),
        ("device", "queue", "--frontend", "tcp://127.0.0.1:0", "--backend", "tcp://*:0"),
    ],
)  # fmt: skip
def test_what_other_machines_reach_is_bound_only_with_insecure(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == BAD_CONFIGURATION
    assert "can be reached from other machines" in result.stderr
    assert "--insecure" in result.stderr


@pytest.mark.parametrize("command", [("reply", "s"), ("pub", "t", "1")], ids=lambda command: command[0])
def test_with_insecure_it_is_bound(command: tuple[str, ...]) -> None:
    result = run(*command, "--url", "@tcp://0.0.0.0:0", "--insecure", "--timeout", "0")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("command", "default"),
    [("pub", "5"), ("sub", "no limit"), ("request", "5"), ("reply", "no limit"), ("send", "10"), ("receive", "no limit"),
     ("status", "5"), ("top", "5")],
)  # fmt: skip
def test_help_tells_how_long_is_waited_unasked(command: str, default: str) -> None:
    words = " ".join(run(command, "--help").stdout.split())
    assert f"[{default}]" in words[words.index("--timeout S") :]


@pytest.mark.parametrize("command", ["send", "receive", "status", "top"])
def test_help_promises_no_peer_to_peer_where_there_is_none(command: str) -> None:
    assert "tcp://" not in run(command, "--help").stdout


def test_what_peers_cannot_do_is_refused() -> None:
    result = run("sub", "a", "--overflow", "drop_oldest", "--url", "tcp://127.0.0.1:9")
    assert result.exit_code == REFUSED
    assert "needs a broker" in result.stderr


@pytest.mark.parametrize("command", PLANNED)
def test_what_is_not_built_is_refused(command: str) -> None:
    result = run(command, "list")
    assert result.exit_code == REFUSED
    assert f"`zbroker {command}` is not built" in result.stderr


@pytest.mark.parametrize(
    "command", ["pub", "sub", "request", "reply", "send", "receive", "status", "completion", "stream", "group"]
)
def test_each_command_has_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert command in COMMANDS
    assert "zbroker" in result.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_ZBROKER_COMPLETE" in result.stdout


TIMED = [
    ("pub", "t", "1"), ("sub", "t"), ("request", "s", "1"), ("reply", "s"), ("send", "s", "1"), ("receive", "s"),
    ("status",), ("top",),
]  # fmt: skip


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "x", ""])
@pytest.mark.parametrize("command", TIMED, ids=lambda command: command[0])
def test_a_timeout_that_is_none_is_wrong_usage(command: tuple[str, ...], text: str) -> None:
    result = run(*command, *ZB, "--timeout", text)
    assert (result.exit_code, result.stdout) == (USAGE, "")
    assert "'--timeout'" in result.stderr


@pytest.mark.parametrize("text", ["-1", "0", "1.5", "x", "1000000000001", "99999999999999999999999"])
@pytest.mark.parametrize("command", [("sub", "t"), ("reply", "s"), ("receive", "s"), ("top",)], ids=lambda one: one[0])
def test_a_count_that_is_none_is_wrong_usage(command: tuple[str, ...], text: str) -> None:
    result = run(*command, *ZB, "--count", text)
    assert (result.exit_code, result.stdout) == (USAGE, "")
    assert "'--count'" in result.stderr


@pytest.mark.parametrize("text", ["-1", "0", "nan", "inf", "1e9"])
def test_an_interval_that_is_none_is_wrong_usage(text: str) -> None:
    assert run("top", *ZB, "--interval", text).exit_code == USAGE


@pytest.mark.parametrize("command", list(COMMANDS))
def test_the_help_of_every_command_fits_80_columns(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_bench_rows_lists_every_name_that_run_takes() -> None:
    from zbroker.bench.rows import PLANS

    listed = run("bench", "rows").stdout
    assert [line.split()[0] for line in listed.splitlines() if line.startswith("  ")] == [plan.name for plan in PLANS]
    assert run("bench", "rows", "--json").stdout.count('"row":') == len(PLANS)


@pytest.mark.parametrize("command", ["run", "device", "demo", "bench run", "bench compare"])
def test_help_has_an_example(command: str) -> None:
    assert f"\n  zbroker {command}" in run(*command.split(), "--help").stdout
