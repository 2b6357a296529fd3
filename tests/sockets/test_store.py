"""Backups of a broker that is at work, exports and imports: what a broker serves before is what one serves after."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from patterns.sync import Consumer, Producer
from tests.processes import Broker


def store(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "zbroker", "store", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=60)


def everything(url: str, stream: str, count: int) -> list[tuple[int, Any, str | None, dict[str, str] | None]]:
    """What a reader gets, as it was sent: offset, body, key, headers."""
    found = []
    with Consumer(url, stream, idle_timeout_s=30) as reader:
        for d in reader:
            found.append((d.offset, d.body, d.key, d.headers))
            if len(found) == count:
                break
    return found


def test_a_backup_of_a_broker_at_work_holds_all_that_was_confirmed_before(tmp_path: Path) -> None:
    target = tmp_path / "copy" / "data"
    target.parent.mkdir()
    with Broker(tmp_path) as broker, Producer(broker.url, "s") as out:
        confirmed = len(out.send_many({"n": number} for number in range(5_000)))
        posted = [out.post({"n": number}) for number in range(5_000, 6_000)]
        done = store("backup", broker.data, target, "--json")
        assert done.returncode == 0, done.stderr
        out.flush()
        assert all(one.done() for one in posted)
        assert store("verify", broker.data).returncode == 69, "a broker runs on it"
    assert store("verify", target).returncode == 0
    with Broker(target.parent) as copy:
        bodies = [body for _, body, _, _ in everything(copy.url, "s", confirmed)]
        assert bodies == [{"n": number} for number in range(confirmed)]


def test_what_is_exported_can_be_imported_and_is_the_same(tmp_path: Path) -> None:
    sent: dict[str, list[tuple[Any, str | None, dict[str, str] | None]]] = {
        "json": [({"a": [1, 2.5, "é"]}, "k", {"h": "1"}), (None, None, None), (2**60, "k2", None)],
        "msgpack": [({"a": 1}, None, None), (b"\x00\xff", None, {"x": "y"}), ([1.0, None], None, None)],
        "raw": [(b"one", None, None), (b"", "k", None), (b"\xff" * 100, None, None)],
    }
    with Broker(tmp_path) as broker:
        for codec, messages in sent.items():
            with Producer(broker.url, codec, codec=codec) as out:
                for body, key, headers in messages:
                    out.send(body, key=key, headers=headers)
                out.send_many([body for body, _, _ in messages])
        before = {codec: everything(broker.url, codec, 6) for codec in sent}
    exported = store("export", broker.data)
    assert exported.returncode == 0, exported.stderr
    lines = [json.loads(line) for line in exported.stdout.splitlines()]
    assert len(lines) == 18
    assert lines[0]["body"] == {"a": [1, 2.5, "é"]}
    assert {
        line["stream"] for line in map(json.loads, store("export", broker.data, "--stream", "raw").stdout.splitlines())
    } == {"raw"}
    typed_wrong = store("export", broker.data, "--stream", "jsn")
    assert (typed_wrong.returncode, typed_wrong.stdout) == (1, b"")
    assert b"stream 'jsn' is not in" in typed_wrong.stderr
    assert b"json, msgpack, raw" in typed_wrong.stderr
    target = tmp_path / "copy"
    imported = store("import", target / "data", "-", stdin=exported.stdout)
    assert imported.returncode == 0, imported.stderr
    with Broker(target) as copy:
        assert {codec: everything(copy.url, codec, 6) for codec in sent} == before
        with Producer(copy.url, "json", codec="json") as out:
            assert out.send("after").offset == 6
    again = store("export", target / "data", "--raw")
    assert all("body_base64" in json.loads(line) for line in again.stdout.splitlines())


def test_a_bad_line_is_named_and_those_before_it_are_stored(tmp_path: Path) -> None:
    good = b'{"stream": "s", "body": {"n": 1}}\n'
    done = store("import", tmp_path / "data", stdin=good + b"\nthesis\n" + good)
    assert done.returncode == 1
    text = done.stderr.decode()
    assert "line 3" in text
    assert "1 message before it" in text
    assert store("export", tmp_path / "data").stdout.count(b'"n"') == 1


def test_what_the_door_refuses_an_import_refuses_and_large_columns_are_of_several_batches(tmp_path: Path) -> None:
    many = b"".join(b'{"stream": "s", "body": %d, "key": "%s"}\n' % (n, b"k" * 60_000) for n in range(30))
    done = store("import", tmp_path / "data", stdin=many + b'{"stream": "s", "body": 1, "key": "%s"}' % (b"k" * 70_000))
    assert done.returncode == 1
    assert "line 31: key, headers, message_id of 70005 bytes" in done.stderr.decode()
    with Broker(tmp_path) as broker:
        assert [body for _, body, _, _ in everything(broker.url, "s", 30)] == list(range(30))
