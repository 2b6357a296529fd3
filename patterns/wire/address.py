"""Addresses as a user writes them (interface.md 2): what they mean, and what is wrong with them."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from patterns.wire.errors import BadAddress

BROKER_PORT: Final = 7700
MEMORY: Final = "memory://"  # a broker in the memory of this process, for tests; no other process gets there
_SCHEMES: Final = ("tcp://", "ipc://", "inproc://", "zb://", "zb+ipc://", MEMORY)
_TCP = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[^\[\]:/\s]+)(?::(?P<port>[0-9]{1,5}|\*))?\Z")
IPC_PATH_BYTES_MAX: Final = 107  # sun_path of Linux, less the final zero


class Address(msgspec.Struct, frozen=True):
    """Where one other end is.

    Attributes:
        endpoint: for ZeroMQ: tcp://, ipc:// or inproc://; or memory://.
        brokered: zb://, zb+ipc:// or memory://.
        binds: True, False, or None: the role decides.
    """

    endpoint: str
    brokered: bool
    binds: bool | None = None

    def __str__(self) -> str:
        """As a user writes it, the port filled in: zb://host:7700 for a broker."""
        if not self.brokered or self.endpoint.startswith(MEMORY):
            return self.endpoint
        scheme, _, rest = self.endpoint.partition("://")
        return f"{'zb' if scheme == 'tcp' else 'zb+ipc'}://{rest}"

    @property
    def of_a_broker(self) -> Address:
        """The same place, if a broker is there."""
        return Address(self.endpoint, brokered=True)


def parse_addresses(text: str | None) -> tuple[Address, ...]:
    """One or more addresses, comma separated; all through a broker or all peer to peer.

    Raises:
        BadAddress: with the part that is wrong, and what is allowed.
    """
    if text is not None and not isinstance(text, str):
        raise BadAddress(f"address of type {type(text).__name__}; a str is needed, for example 'zb://localhost'")
    if not text:
        raise BadAddress("no address: pass one, or set ZBROKER_URL, for example ZBROKER_URL=zb://localhost")
    addresses = tuple(parse_address(part.strip()) for part in text.split(","))
    if len({address.brokered for address in addresses}) > 1:
        raise BadAddress(f"{text!r} mixes broker addresses (zb://) with peer-to-peer ones; use one kind")
    return addresses


def parse_address(text: str) -> Address:
    """One address; see parse_addresses()."""
    binds = {"@": True, ">": False}.get(text[:1])
    plain = text[1:] if binds is not None else text
    scheme = next((scheme for scheme in _SCHEMES if plain.startswith(scheme)), None)
    if scheme is None:
        raise BadAddress(f"address {text!r}: it must begin with one of {', '.join(_SCHEMES)}")
    rest = plain[len(scheme) :]
    if not text.isprintable():  # a lone surrogate has no bytes at all, and a control character is in no real address
        raise BadAddress(f"address {text!r} holds characters that cannot be printed")
    if scheme in ("zb://", "tcp://"):
        return _tcp_address(text, scheme, rest, binds)
    if not rest:
        raise BadAddress(f"address {text!r} names no {'path' if 'ipc' in scheme else 'name'}")
    if "ipc" in scheme and len(rest.encode()) > IPC_PATH_BYTES_MAX:
        raise BadAddress(
            f"address {text!r}: a socket path has at most {IPC_PATH_BYTES_MAX} bytes, this has {len(rest.encode())}"
        )
    if scheme == MEMORY:
        return _memory_address(text, rest, binds)
    brokered = scheme == "zb+ipc://"
    return Address(f"{'ipc://' if brokered else scheme}{rest}", brokered, False if brokered else binds)


def _memory_address(text: str, rest: str, binds: bool | None) -> Address:
    if binds:
        raise BadAddress(f"address {text!r}: everybody connects to a broker, '@' has no meaning here")
    return Address(f"{MEMORY}{rest}", True, False)


def _tcp_address(text: str, scheme: str, rest: str, binds: bool | None) -> Address:
    brokered = scheme == "zb://"
    found = _TCP.match(rest.rstrip("/") if brokered else rest)
    if found is None:
        raise BadAddress(f"address {text!r}: expected {scheme}host:port")
    host, port = found["host"], found["port"]
    if port is None:
        if not brokered:
            raise BadAddress(f"address {text!r} has no port; write {scheme}{host}:7000")
        port = str(BROKER_PORT)
    if port != "*" and int(port) > 65_535:
        raise BadAddress(f"address {text!r}: port {port} is above 65535")
    if brokered and port == "*":
        raise BadAddress(f"address {text!r}: a broker is found at a port with a number")
    if brokered and binds:
        raise BadAddress(f"address {text!r}: everybody connects to a broker, '@' has no meaning here")
    return Address(f"tcp://{host}:{port}", brokered, False if brokered else binds)


def is_loopback(endpoint: str) -> bool:
    """Whether only this machine can reach a bound endpoint."""
    if not endpoint.startswith("tcp://"):
        return True
    host = endpoint[len("tcp://") :].rpartition(":")[0].strip("[]")
    return host == "localhost" or host == "::1" or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
