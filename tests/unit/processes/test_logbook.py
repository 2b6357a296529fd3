"""The log: its lines, its bounds, and that nobody who writes to it waits."""

from __future__ import annotations

import json
import os
import threading

import pytest

from tests.processes import until
from zbroker.processes import logbook
from zbroker.processes.logbook import BURST, QUEUE_LINES_MAX, TELL_US, Limiter, Logbook, json_line, text_line

SECOND = 1_000_000
PIPE_BYTES = 65_536


class Clock:
    now = 10 * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass  # the test has closed it


def book(descriptor: int | None, level: str = "info", form: str = "json", clock: Clock | None = None) -> Logbook:
    return Logbook(form, level, descriptor, clock or Clock(), lambda: 1_700_000_000_123)


def read_all(end: int) -> list[dict[str, object]]:
    os.set_blocking(end, False)
    return [json.loads(line) for line in os.read(end, PIPE_BYTES).splitlines()]


def test_a_json_line_begins_with_the_same_three_keys():
    line = json_line(1_700_000_000_123, "info", "started", {"native": "tcp://h:1", "data": None})
    assert line.endswith(b"}\n")
    assert list(json.loads(line).items())[:3] == [
        ("time", "2023-11-14T22:13:20.123Z"),
        ("level", "info"),
        ("event", "started"),
    ]


@pytest.mark.parametrize("value", ["two words", "a\nb", "\x1b[2J", "\x7f", "\x9b", "ü", "", 'q"', "\udcff"])
def test_what_is_not_plain_is_quoted_and_escaped_in_text(value):
    line = text_line(0, "info", "e", {"k": value}).decode()
    assert line.startswith("1970-01-01T00:00:00.000Z info e k=")
    assert line.endswith("\n")
    assert line[:-1].isascii()
    assert line[:-1].isprintable() or value == "\x7f"
    assert json.loads(line.partition("k=")[2]) == value


def test_less_than_the_level_is_not_written(pipe):
    read, write = pipe
    log = book(write, "warning")
    for level in ("debug", "info", "warning", "error"):
        log.write(level, level)
    log.close()
    assert [record["event"] for record in read_all(read)] == ["warning", "error"]
    assert log.status() == {"level": "warning", "written": 2, "dropped": 0, "suppressed": {}}


def test_an_event_that_comes_too_often_is_counted_and_told_of(pipe):
    read, write = pipe
    clock = Clock()
    log = book(write, clock=clock)
    for number in range(BURST["warning"] + 5):
        log.write("warning", "guard_cut", number=number)
    log.write("warning", "other")
    log.tell_suppressed()
    log.write("warning", "guard_cut", number=-1)
    log.tell_suppressed()  # too soon to say it again
    clock.now += TELL_US
    log.tell_suppressed()
    log.write("warning", "guard_cut", number=100)
    log.close()
    records = read_all(read)
    assert sum(record["event"] == "guard_cut" for record in records) == BURST["warning"] + 1
    assert [(record["of"], record["records"]) for record in records if record["event"] == "suppressed"] == [
        ("guard_cut", 5),
        ("guard_cut", 1),
    ]
    assert [record["event"] for record in records][-1] == "guard_cut"
    assert log.status()["suppressed"] == {"guard_cut": 6}


def test_what_was_left_out_last_is_told_at_the_end(pipe):
    read, write = pipe
    log = book(write)
    for _ in range(BURST["info"] + 3):
        log.write("info", "x")
    log.close()
    assert read_all(read)[-1]["records"] == 3


def test_a_rate_holds_over_time_whatever_comes():
    limiter = Limiter()
    admitted = sum(limiter.admits("info", "e", now) for now in range(0, 100 * SECOND, SECOND // 100))
    assert BURST["info"] + 98 <= admitted <= BURST["info"] + 100
    assert limiter.totals() == {"e": 10_000 - admitted}


def test_nobody_waits_for_a_reader_that_has_stopped(pipe, monkeypatch):
    monkeypatch.setattr(logbook, "CLOSE_S", 0.01)
    read, write = pipe
    clock = Clock()
    log = book(write, clock=clock)
    count = 0
    while count < 3 * QUEUE_LINES_MAX or not log.is_stuck:  # its thread may take one more before it stands still
        count += 1
        clock.now += SECOND
        log.write("info", "x", text="x" * 500)
    log.close()
    status = log.status()
    assert status["dropped"] + status["written"] + QUEUE_LINES_MAX + 1 >= count
    assert status["dropped"] > 0
    os.set_blocking(read, False)  # and when it reads again, what has waited comes
    taken = bytearray()

    def ends() -> bool:
        try:
            taken.extend(os.read(read, PIPE_BYTES))
        except BlockingIOError:
            pass
        return not log._thread.is_alive()

    until(ends)
    assert log.status()["written"] + status["dropped"] == count


def test_a_reader_that_has_gone_costs_lines_and_nothing_else(pipe):
    read, write = pipe
    os.close(read)
    log = book(write)
    log.write("info", "x")
    until(lambda: log.status()["dropped"] == 1)
    log.close()


def test_a_pipe_that_was_made_non_blocking_loses_nothing(pipe):
    read, write = pipe
    os.set_blocking(write, False)
    clock = Clock()
    log = book(write, clock=clock)
    for number in range(1_000):
        clock.now += SECOND
        log.write("info", "x", number=number, text="x" * 200)
    found = bytearray()
    reader = threading.Thread(target=lambda: found.extend(iter_all(read)))
    reader.start()
    until(lambda: log.status()["written"] == 1_000)
    log.close()
    os.close(write)
    reader.join()
    assert [json.loads(line)["number"] for line in found.splitlines()] == list(range(1_000))


def iter_all(end: int) -> bytes:
    parts = []
    while part := os.read(end, PIPE_BYTES):
        parts.append(part)
    return b"".join(parts)


def test_without_standard_error_every_line_is_dropped():
    log = book(None)
    log.write("info", "x")
    until(lambda: log.status()["dropped"] == 1)
    log.close()
