"""What newcomers get wrong, with real sockets: the error says what it is, and what to write instead."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from patterns.sync import Publisher, Replier, Requester, Subscriber
from patterns.wire.errors import BadAddress, Unavailable, ZbrokerError
from tests.processes import Broker, until


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("hints"), durable=False) as running:
        yield running


def complaint(requester: Requester, timeout_s: float = 0.3) -> str:
    with pytest.raises(ZbrokerError) as caught:
        requester.request("price", 1, timeout_s=timeout_s, wait_s=timeout_s)
    return str(caught.value)


def test_an_address_is_named_as_it_was_written(broker: Broker, tmp_path: Path) -> None:
    with Replier("tcp://127.0.0.1:*", "x") as free:
        dead = free.address.replace("tcp://", "zb://")
    with Requester(dead) as requester:
        until(lambda: f"nobody listens at {dead}" in complaint(requester))
        assert "tcp://" not in complaint(requester)
    with Requester(f"zb+ipc://{tmp_path}/b") as requester:
        until(lambda: f"nobody listens at zb+ipc://{tmp_path}/b" in complaint(requester))
    with Replier(broker.url, "named") as replier:
        assert replier.address == broker.url


@pytest.mark.parametrize("scheme", ["zb", "tcp"])
def test_a_name_that_does_not_resolve_is_said_to_be_that(scheme: str) -> None:
    try:
        socket.getaddrinfo("nosuch.invalid", 7700)
    except socket.gaierror:
        pass
    else:
        pytest.skip("here every name resolves, .invalid too")
    address = f"{scheme}://nosuch.invalid:7700"
    with Requester(address) as requester:
        until(lambda: f"the name in {address} does not resolve; is it spelled right?" in complaint(requester))


def test_a_subscriber_whose_publisher_comes_back_is_not_told_of_names() -> None:
    with Publisher("tcp://127.0.0.1:*") as publisher:
        address = publisher.address
        subscriber = Subscriber(address, "a")
        subscriber.ready(30)
    with subscriber:

        def names_nobody() -> bool:
            try:
                subscriber.ready(0.1)
                said.append("")  # it has not heard of the break yet
            except Unavailable as error:
                said.append(str(error))
            return f"nobody listens at {address}" in said[-1]

        said: list[str] = []
        until(names_nobody)
        assert not [text for text in said if "resolve" in text]


def test_peer_to_peer_to_a_broker_is_told_to_write_zb(broker: Broker) -> None:
    address = broker.url.replace("zb://", "tcp://")
    with Requester(address) as requester, pytest.raises(BadAddress, match=f"write {broker.url}"):
        requester.request("price", 1, timeout_s=30, wait_s=30)
    with Subscriber(address, "a") as subscriber:

        def hints() -> bool:
            with pytest.raises(Unavailable) as caught:
                subscriber.ready(0.1)
            return f"write {broker.url}" in str(caught.value)

        until(hints)


def test_a_broker_address_at_another_kind_of_socket_is_said_to_be_that() -> None:
    with Publisher("tcp://127.0.0.1:*") as publisher:
        address = publisher.address.replace("tcp://", "zb://")
        with Requester(address) as requester:
            until(lambda: f"whoever listens at {address} hangs up" in complaint(requester))


def test_an_address_that_is_refused_is_named_once_with_what_to_do() -> None:
    with Replier("tcp://127.0.0.1:0", "x") as first, pytest.raises(Unavailable) as taken:
        Replier(first.address, "x")
    assert str(taken.value).count("tcp://") == 1
    assert "another program listens there: stop it, or choose another port" in str(taken.value)
    with pytest.raises(BadAddress, match=r"tcp://\*:7000: Invalid argument; write tcp://HOST:PORT") as odd:
        Requester("tcp://*:7000")
    assert "addr=" not in str(odd.value)
