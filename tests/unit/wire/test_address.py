from __future__ import annotations

import pytest

from patterns.wire.address import Address, is_loopback, parse_address, parse_addresses
from patterns.wire.errors import BadAddress


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("zb://localhost", Address("tcp://localhost:7700", True, False)),
        ("zb://broker.example:7800/", Address("tcp://broker.example:7800", True, False)),
        (">zb://a", Address("tcp://a:7700", True, False)),
        ("zb+ipc:///run/zb.sock", Address("ipc:///run/zb.sock", True, False)),
        ("tcp://127.0.0.1:7000", Address("tcp://127.0.0.1:7000", False)),
        ("@tcp://*:7000", Address("tcp://*:7000", False, True)),
        (">tcp://[::1]:7000", Address("tcp://[::1]:7000", False, False)),
        ("tcp://127.0.0.1:*", Address("tcp://127.0.0.1:*", False)),
        ("ipc:///tmp/a", Address("ipc:///tmp/a", False)),
        ("memory://tests", Address("memory://tests", True, False)),
        ("inproc://a", Address("inproc://a", False)),
    ],
)
def test_an_address_means(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it must begin with"),
        ("localhost:7700", "it must begin with"),
        ("http://a", "it must begin with"),
        ("tcp://host", "has no port"),
        ("tcp://:7000", "expected tcp://host:port"),
        ("tcp://a:b", "expected"),
        ("tcp://a b:1", "expected"),
        ("tcp://a:70000", "above 65535"),
        ("tcp://a:\u0663", "expected"),
        ("tcp://a:" + "9" * 5_000, "expected"),
        ("zb://a:*", "a port with a number"),
        ("@zb://a", "'@' has no meaning"),
        ("ipc://", "names no path"),
        ("inproc://", "names no name"),
        ("ipc://" + "p" * 108, "at most 107 bytes"),
        ("ipc:///\ud800", "cannot be printed"),
        ("ipc:///a\0b", "cannot be printed"),
    ],
)
def test_a_bad_address_is_refused_with_the_rule(text, why):
    with pytest.raises(BadAddress, match=why):
        parse_address(text)


def test_several_brokers_are_one_list():
    assert [address.endpoint for address in parse_addresses("zb://a, zb://b")] == ["tcp://a:7700", "tcp://b:7700"]


def test_brokers_and_peers_do_not_mix():
    with pytest.raises(BadAddress, match="mixes"):
        parse_addresses("zb://a,tcp://b:1")


@pytest.mark.parametrize("text", [None, ""])
def test_no_address_names_the_variable_that_gives_one(text):
    with pytest.raises(BadAddress, match="ZBROKER_URL"):
        parse_addresses(text)


@pytest.mark.parametrize(
    ("endpoint", "loopback"),
    [
        ("tcp://127.0.0.1:1", True),
        ("tcp://127.8.0.1:*", True),
        ("tcp://[::1]:1", True),
        ("tcp://localhost:1", True),
        ("ipc:///a", True),
        ("tcp://*:1", False),
        ("tcp://0.0.0.0:1", False),
        ("tcp://127.evil.example:1", False),
    ],
)
def test_a_loopback_endpoint_is_told_from_an_open_one(endpoint, loopback):
    assert is_loopback(endpoint) is loopback


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("zb://host", "zb://host:7700"),
        ("zb://[::1]:7", "zb://[::1]:7"),
        ("zb+ipc:///run/b", "zb+ipc:///run/b"),
        ("memory://tests", "memory://tests"),
        ("tcp://h:1", "tcp://h:1"),
        ("@ipc://x", "ipc://x"),
    ],
)
def test_an_address_is_shown_as_it_is_written(text, shown):
    assert str(parse_address(text)) == shown


@pytest.mark.parametrize(("text", "shown"), [("tcp://h:1", "zb://h:1"), (">ipc://x", "zb+ipc://x")])
def test_a_place_can_be_named_as_a_brokers(text, shown):
    assert str(parse_address(text).of_a_broker) == shown
