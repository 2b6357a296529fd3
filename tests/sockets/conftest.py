"""Fixtures of the socket tests: each body runs peer to peer and through a broker process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Broker
from tests.sockets.places import Place, place_of


@pytest.fixture(params=["peer", "broker"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Where a test's roles meet."""
    with place_of(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker with a journal."""
    with Broker(tmp_path) as running:
        yield running
