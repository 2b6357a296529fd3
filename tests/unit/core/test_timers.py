"""Calls by due time."""

from __future__ import annotations

from zbroker.core.timers import Timers


def test_calls_come_in_order_of_time_then_of_setting_and_once() -> None:
    timers, calls = Timers(), []
    for name, due in (("c", 30), ("a", 10), ("b", 10)):
        timers.at(due, lambda now, name=name: calls.append((name, now)))  # type: ignore[misc]
    assert timers.next_timeout() == 10
    timers.handle_timeout(9)
    assert calls == []
    timers.handle_timeout(20)
    timers.handle_timeout(40)
    assert calls == [("a", 20), ("b", 20), ("c", 40)]
    assert timers.next_timeout() is None
