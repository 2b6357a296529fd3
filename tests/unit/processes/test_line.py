"""The two kinds of line do the same: one over a socketpair of the system, one in memory."""

from __future__ import annotations

import os
import socket

import pytest

from tests.processes import until
from zbroker.processes import dialogue
from zbroker.processes.line import SocketLine
from zbroker.testing.line import virtual_pair

BIG = 3 << 20


@pytest.fixture(params=["socket", "virtual"])
def lines(request):
    if request.param == "virtual":
        ours, its = virtual_pair()
    else:
        ours, its = (SocketLine(end) for end in socket.socketpair())
    yield ours, its
    for line in (ours, its):
        line.close()


def heard(line, sender, count):
    found = []
    while len(found) < count:
        sender.flush()
        found += [(kind, data[start:end]) for kind, data, start, end in line.hear()]
        assert not line.is_cut
    return found


def test_messages_arrive_in_order_and_whole(lines):
    ours, its = lines
    body = os.urandom(BIG)
    for number in range(5):
        ours.put(dialogue.said(number))
    ours.put(dialogue.HEAD.pack(len(body), 9), body)
    assert heard(its, ours, 6) == [(number, b"") for number in range(5)] + [(9, body)]
    assert ours.waiting_bytes == 0


def test_what_the_other_end_does_not_take_waits_and_nobody_blocks(lines):
    ours, its = lines
    for _ in range(8):
        ours.put(dialogue.HEAD.pack(BIG, 1), bytes(BIG))
    ours.flush()
    assert 0 < ours.waiting_bytes < 8 * (BIG + 5)
    assert len(heard(its, ours, 8)) == 8


def test_nothing_is_heard_where_nothing_was_said(lines):
    _, its = lines
    assert its.hear() == []
    assert not its.is_cut
    assert its.wait(0) is False


def test_what_was_said_before_the_end_is_heard_before_it(lines):
    ours, its = lines
    ours.put(dialogue.said(3, b"last words"))
    ours.flush()
    ours.close()
    assert [message[0] for message in its.hear()] == [3]
    assert not its.is_cut
    until(lambda: its.hear() == [] and its.is_cut, what="the end")


def test_who_sends_to_nobody_loses_it_and_is_told(lines):
    ours, its = lines
    its.close()
    ours.put(dialogue.said(1))
    ours.drain()
    assert ours.is_broken
    assert ours.waiting_bytes == 0
    until(lambda: ours.hear() == [] and ours.is_cut, what="the end")


def test_an_end_with_something_unread_is_an_end(lines):
    ours, its = lines
    ours.put(dialogue.said(1))
    ours.flush()
    its.close()
    until(lambda: ours.hear() == [] and ours.is_cut, what="the end")


def test_the_end_of_a_line_wakes_who_waits(lines):
    ours, its = lines
    its.close()
    assert ours.wait(10_000_000)
