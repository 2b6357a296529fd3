"""Handlers that end more than themselves, and handlers that are none: each request has its answer, and no offer stays without a server."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from patterns.sync import Replier, Requester
from patterns.wire.errors import HandlerFailed, NoReplier, Untranslatable
from tests.sockets.places import JOIN_S, Place, serving

FATAL = "die"


class Fatal(BaseException):
    """Not an Exception."""


def _fragile(kind: type[BaseException]) -> Any:
    def handler(body: Any) -> Any:
        if body == FATAL:
            raise kind("for good")
        return body

    return handler


class _Server:
    """A thread that serves until something ends it."""

    def __init__(self, replier: Replier) -> None:
        self._replier = replier
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self._replier.serve_forever()
        except BaseException as error:  # noqa: BLE001  handed to the test's thread
            self.error = error

    def join(self) -> BaseException | None:
        self._thread.join(JOIN_S)
        assert not self._thread.is_alive()
        return self.error


@pytest.mark.parametrize("kind", [SystemExit, Fatal])
def test_what_ends_the_server_is_told_to_the_requester_and_ends_the_offer(
    kind: type, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with Replier(place.bind, "fragile", _fragile(kind)) as replier, Requester(place.of(replier)) as asker:
        replier.ready(30)
        server = _Server(replier)
        with pytest.raises(HandlerFailed, match=f"{kind.__name__}: for good"):
            asker.request("fragile", FATAL, timeout_s=30)
        assert isinstance(server.join(), kind)
        assert ("'fragile' has called exit" in caplog.text) == (
            kind is SystemExit
        )  # a thread ends by it without a word
        with pytest.raises(NoReplier):
            asker.request("fragile", 1, timeout_s=30, wait_s=0.2)
        server = _Server(replier)
        assert asker.request("fragile", 2, timeout_s=30, wait_s=20) == 2
        replier.close()
        assert server.join() is None


@pytest.mark.parametrize("reply", [{"raw": b"\xff"}, {"by": {1: 2}}])
def test_a_reply_that_the_requesters_codec_cannot_express_is_refused_the_same_way_everywhere(
    place: Place, reply: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serving(place.bind, "wide", lambda body: reply) as replier,
        Requester(place.of(replier), codec="json") as narrow,
        Requester(place.of(replier)) as wide,
    ):
        with pytest.raises(Untranslatable, match=r"raw|by"):
            narrow.request("wide", 1, timeout_s=30)
        assert wide.request("wide", 1, timeout_s=30) == reply
    assert "failed" not in caplog.text  # the handler has not


def test_a_handler_whose_exception_has_no_words_ends_nothing(place: Place) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError("no words")

    def handler(body: Any) -> Any:
        if body == FATAL:
            raise Mute
        return body

    with serving(place.bind, "mute", handler) as replier, Requester(place.of(replier)) as asker:
        with pytest.raises(HandlerFailed, match="Mute, which cannot say"):
            asker.request("mute", FATAL, timeout_s=30)
        assert asker.request("mute", 1, timeout_s=30) == 1


def test_others_answer_when_one_server_ends(place: Place) -> None:
    with Replier(place.bind, "shared", _fragile(Fatal)) as replier:
        replier.ready(30)
        server = _Server(replier)
        with Requester(place.of(replier)) as asker, pytest.raises(HandlerFailed):
            asker.request("shared", FATAL, timeout_s=30)
        assert isinstance(server.join(), Fatal)
        with serving(place.bind, "shared", lambda body: -body) as other, Requester(place.of(replier, other)) as asker:
            for number in range(20):
                assert asker.request("shared", number, timeout_s=30, wait_s=20) == -number


def test_while_one_of_two_servers_goes_on_the_offer_stays(place: Place) -> None:
    with Replier(place.bind, "two", _fragile(Fatal)) as replier, Requester(place.of(replier)) as asker:
        replier.ready(30)
        servers = [_Server(replier), _Server(replier)]
        with pytest.raises(HandlerFailed):
            asker.request("two", FATAL, timeout_s=30)
        for number in range(10):
            assert asker.request("two", number, timeout_s=30, wait_s=20) == number
        replier.close()
        assert sorted(str(server.join()) for server in servers) == ["None", "for good"]
