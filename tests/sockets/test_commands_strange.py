"""`zbroker status` and `zbroker top` at a broker of another version, or a hostile one: a sentence, never a traceback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import pytest
import zmq
from click.testing import CliRunner, Result

from patterns.io import driver
from zbroker.cli.main import main

_encode = msgspec.msgpack.encode
READY: Final = {
    "version": 1, "cluster": "c", "epoch": 1, "limits": {"body_bytes_max": 1 << 20, "batch_bytes_max": 1 << 20},
    "credit_messages": 1_000, "credit_bytes": 1 << 20,
}  # fmt: skip
WHOLE: Final = {"epoch": 1, "uptime_ms": 1_000, "warnings": [], "streams": {}, "guard": {"connections": 1}}
EVIL: Final = {
    **WHOLE,
    "warnings": ["\x1b[2J\x1b]0;owned\x07evil\nnew"],
    "streams": {"\x1b[31mred\nline": {"next_offset": 1, "messages": 1}},
    "sessions": {"\x1b]0;own\x07role": 1, "\u202erole": 2},
    "services": {"\x9b2Jsvc": {}},
    "counters": {"\u200bx": 1},
}


@contextmanager
def broker_that_answers(*answers: list[bytes]) -> Iterator[str]:
    """A bare ROUTER that greets everybody; its n-th answer to ADMIN is answers[n], of its kind on, the last for ever."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.PAIR) as stop:
        port = router.bind_to_random_port("tcp://127.0.0.1")
        stop.bind("inproc://stop")
        thread = threading.Thread(target=_serve, args=(router, stop, answers))
        thread.start()
        try:
            yield f"zb://127.0.0.1:{port}"
        finally:
            with context.socket(zmq.PAIR) as stopper:
                stopper.connect("inproc://stop")
                stopper.send(b"")
                thread.join(30)


def _serve(router: zmq.Socket[bytes], stop: zmq.Socket[bytes], answers: tuple[list[bytes], ...]) -> None:
    poller, asked = zmq.Poller(), 0
    poller.register(router, zmq.POLLIN)
    poller.register(stop, zmq.POLLIN)
    while stop not in dict(poller.poll()):
        peer, kind, *rest = router.recv_multipart()
        if kind == b"ZB1H":
            router.send_multipart([peer, b"ZB1h", _encode(READY)])
        elif kind == b"ZB1G":
            router.send_multipart([peer, b"ZB1G", _encode({})])
        elif kind == b"ZB1M":
            kind, *payload = answers[min(asked, len(answers) - 1)]
            header = {**(msgspec.msgpack.decode(payload.pop(0)) if kind == b"ZB1E" else {})}
            header["id"] = msgspec.msgpack.decode(rest[0])["id"]
            router.send_multipart([peer, kind, _encode(header), *payload])
            asked += 1


def status_of(value: Any) -> list[bytes]:
    return [b"ZB1m", b"", _encode([value])]


def run(*arguments: str, url: str) -> Result:
    result = CliRunner().invoke(main, [*arguments, "--url", url, "--timeout", "30"], env={"ZBROKER_URL": None})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("command", [("status",), ("top", "--count", "1", "--interval", "0.1")], ids=lambda one: one[0])
@pytest.mark.parametrize(
    ("answer", "where"),
    [
        (status_of({}), "epoch"),
        (status_of({1: 2}), "does not understand"),
        (status_of({**WHOLE, "uptime_ms": "x"}), "$.uptime_ms"),
        (status_of({**WHOLE, "streams": {"a": None}}), "$.streams[...]"),
        (status_of({**WHOLE, "guard": [1]}), "$.guard"),
        (status_of({**WHOLE, "warnings": 5}), "$.warnings"),
        (status_of(None), "not a map"),
        ([b"ZB1m", b"", b"\xc1"], "msgpack"),
        ([b"ZB1m"], "msgpack"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_another_shape_is_told_in_one_line(command: tuple[str, ...], answer: list[bytes], where: str) -> None:
    with broker_that_answers(answer) as url:
        result = run(*command, url=url)
    (line,) = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (1, "")
    assert line.startswith("zbroker: ")
    assert where in line


def test_top_ends_when_a_later_answer_has_another_shape() -> None:
    with broker_that_answers(status_of(WHOLE), status_of({**WHOLE, "uptime_ms": 2_000}), status_of({})) as url:
        result = run("top", "--json", "--count", "5", "--interval", "0.1", url=url)
    assert (result.exit_code, len(result.stdout.splitlines())) == (1, 1)
    assert f"the broker at {url} answered with a status that this version does not understand" in result.stderr


def test_status_as_json_passes_on_what_it_does_not_know() -> None:
    with broker_that_answers(status_of({"new": [1]})) as url:
        assert run("status", "--json", url=url).stdout == '{"new":[1]}\n'
    with broker_that_answers(status_of({"new": msgspec.msgpack.Ext(5, b"x")})) as url:
        assert "JSON cannot express" in run("status", "--json", url=url).stderr


@pytest.mark.parametrize("command", ["status", "top"])
def test_names_of_others_reach_no_terminal_raw(command: str) -> None:
    with broker_that_answers(status_of(EVIL)) as url:
        result = run(command, *(("--count", "1", "--interval", "0.1") if command == "top" else ()), url=url)
    assert result.exit_code == 0
    assert r"\x1b[31mred\nline" in result.stdout
    assert all(line.isprintable() for line in result.stdout.split("\n"))


def test_an_error_of_a_broker_is_one_printable_line_of_a_thousand() -> None:
    error = {"number": 304, "name": "\x1b[2JX", "detail": "\x1b]0;owned\x07\n" + "A" * 60_000, "scope": "command"}
    with broker_that_answers([b"ZB1E", _encode(error)]) as url:
        result = run("status", url=url)
    (line,) = result.stderr.splitlines()
    assert line.isprintable()
    assert len(line) < 1_100


def test_that_nobody_answers_is_said_early_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_PATIENCE_US", 200_000)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        url = f"zb://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
    result = CliRunner().invoke(main, ["status", "--url", url, "--timeout", "1"])
    assert result.exit_code == 69
    assert result.stderr == f"zbroker: no broker answers at {url}: nobody listens at {url}; is it running?\n"


STREAMS: Final = [
    ("stream", "list"), ("stream", "show", "s"), ("stream", "create", "s"), ("stream", "create", "s", "--change"),
    ("stream", "delete", "s", "--yes"), ("stream", "purge", "s", "--yes"), ("stream", "replay", "s"), ("group", "list"),
    ("group", "show", "s", "g"), ("group", "create", "s", "g", "--change"), ("group", "reset", "s", "g"),
    ("group", "pause", "s", "g"), ("group", "delete", "s", "g", "--yes"),
]  # fmt: skip
NONSENSE: Final = [
    None, [], {}, {1: 2}, {"streams": 3, "groups": 3, "count": 1}, {"streams": [{}], "groups": [{}], "count": 3},
    {"streams": [1], "groups": [1], "count": 1}, {"config": 1, "first_offset": "x", "durable_next": -1, "changes": 5},
    {"config": {"colour": 1}, "changes": [{}], "member_rows": [{"leases": []}], "oldest": {"holder": {}}, "count": None},
    {"messages": float("nan"), "published_first": 2**62, "lag_s": -1e300, "paused": "yes", "oldest": [], "config": {"x": b"\xff"}},
    {"streams": [{"name": "\x1b[2J", "messages": "\x9b5m"}], "groups": [{"name": {}}], "count": 1, "purged": [], "start": "\x07"},
]  # fmt: skip


@pytest.mark.parametrize("command", STREAMS, ids=" ".join)
@pytest.mark.parametrize("more", [(), ("--json",)], ids=["words", "json"])
def test_nonsense_about_streams_is_a_sentence_or_shown_clean(command: tuple[str, ...], more: tuple[str, ...]) -> None:
    for nonsense in NONSENSE:
        with broker_that_answers(status_of(nonsense)) as url:
            result = run(*command, *more, url=url)
        assert result.exit_code in (0, 1, 2), (nonsense, result.output)
        assert "Traceback" not in result.output
        if not more:
            assert not {"\x1b", "\x9b", "\x07"} & set(result.output)
