from __future__ import annotations

import pytest

from patterns.io.guard_account import Account
from patterns.io.guard_backlog import LOOK_US, Backlog


class Kernel:
    def __init__(self):
        self.unsent, self.acknowledged = {}, {}

    def unsent_bytes(self, fd):
        return self.unsent.get(fd, 0)

    def acknowledged_bytes(self, fd):
        return self.acknowledged.get(fd, 0)


def account(fd: int, cookie: int | None = None) -> Account:
    return Account(fd, cookie or fd, "127.0.0.1:1", 0, 0, received=0, delivered=0, settled_at=0)


@pytest.fixture
def kernel():
    return Kernel()


@pytest.fixture
def backlog(kernel):
    return Backlog(kernel)


def test_who_has_taken_nothing_between_two_looks_is_deaf_and_who_reads_slowly_is_not(kernel, backlog):
    deaf, slow, idle = account(1), account(2), account(3)
    kernel.unsent = {1: 100, 2: 100}
    assert backlog.deaf([deaf, slow, idle], 0) is None
    assert backlog.deaf([deaf, slow, idle], LOOK_US - 1) is None
    kernel.acknowledged = {2: 1}
    assert backlog.deaf([deaf, slow, idle], LOOK_US) == [deaf]


def test_when_nothing_waits_for_anybody_that_is_known_at_once(backlog):
    assert backlog.deaf([account(1)], 0) == []
    assert backlog.deaf([], LOOK_US) == []


def test_another_connection_on_the_same_fd_is_not_taken_for_the_first(kernel, backlog):
    kernel.unsent = {1: 100}
    assert backlog.deaf([account(1, cookie=7)], 0) is None
    assert backlog.deaf([account(1, cookie=8)], LOOK_US) == []


def test_after_an_answer_and_after_forget_it_begins_anew(kernel, backlog):
    kernel.unsent = {1: 100}
    for now in (0, 10 * LOOK_US):
        assert backlog.deaf([account(1)], now) is None
        assert backlog.deaf([account(1)], now + LOOK_US) != []
    assert backlog.deaf([account(1)], 20 * LOOK_US) is None
    backlog.forget()
    assert backlog.deaf([account(1)], 30 * LOOK_US) is None
