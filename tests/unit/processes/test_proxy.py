"""What a device's processes decide without sockets: counters, their sums, and the words between supervisor and child."""

from __future__ import annotations

import struct

import msgspec
import pytest

from zbroker.processes.proxy import Counts, Failed, Proxy, Ready, Said, Traffic, parse_statistics


def test_statistics_are_what_each_side_received():
    answer = [struct.pack("=Q", number) for number in (20, 1_010, 3, 4, 5, 60, 20, 1_010)]
    assert parse_statistics(answer) == (Traffic(20, 1_010), Traffic(5, 60))


def test_counts_of_two_lives_add_up_and_the_later_one_says_whether_it_is_blocked():
    one = Counts(Traffic(1, 10), Traffic(2, 20), captured=2, missed=1, blocked=True)
    two = Counts(Traffic(3, 30), Traffic(4, 40), captured=5, missed=2)
    assert one + two == Counts(Traffic(4, 40), Traffic(6, 60), captured=7, missed=3)
    assert (two + one).blocked


@pytest.mark.parametrize(
    "said",
    [Ready("tcp://127.0.0.1:1", ">ipc://x", None), Failed("in use", is_unavailable=True), Counts(Traffic(1, 2))],
)
def test_what_a_child_says_is_understood(said):
    assert msgspec.json.decode(msgspec.json.encode(said), type=Said) == said


def test_counters_that_begin_again_are_added_to_what_was_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """libzmq's begin anew when a signal has interrupted the proxy."""
    proxy = Proxy.__new__(Proxy)
    proxy._is_aside = False
    proxy._before = proxy._latest = (Traffic(), Traffic())
    answers = iter([(10, 100), (15, 150), (2, 20), None, (3, 30)])

    def ask() -> list[bytes] | None:
        said = next(answers)
        return said and [struct.pack("=Q", number) for number in (*said, 0, 0, 0, 0, 0, 0)]

    monkeypatch.setattr(proxy, "_ask", ask)
    assert [proxy.traffic()[0] for _ in range(5)] == [
        Traffic(frames, 10 * frames) for frames in (10, 15, 17, 17, 18)
    ]  # fmt: skip
