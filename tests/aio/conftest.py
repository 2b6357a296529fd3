"""The same places as those of the socket tests."""

from tests.sockets.conftest import broker, place  # noqa: F401
