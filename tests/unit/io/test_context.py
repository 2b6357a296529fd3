"""The one context: how many sockets it has, and what it does at exit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from patterns.io import context


class _LeftOpen:
    """A role that the program did not close."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.forked = self.kicked = False
        self._error = error
        self.told: list[int] = []

    def at_exit(self, until: int) -> None:
        self.told.append(until)
        if self._error is not None:
            raise self._error


@pytest.fixture
def ending() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """A context that ends, and is not the one that other tests use."""
    with zmq.Context() as own:
        yield own


def test_there_are_sockets_for_some_thousands_of_roles() -> None:
    assert context.shared_context().get(zmq.MAX_SOCKETS) == 16_384


def test_at_exit_all_roles_together_have_one_time_and_one_that_raises_keeps_no_other_open(
    ending: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    roles = [_LeftOpen(ValueError("one")), _LeftOpen(SystemExit(3)), _LeftOpen()]
    monkeypatch.setattr(context, "_users", set(roles))
    context._let_leave(ending)
    assert len({role.told[0] for role in roles}) == 1
    assert "ValueError: one" in caplog.text
    assert "SystemExit: 3" in caplog.text
