from __future__ import annotations

import msgspec
import pytest

from patterns.wire.messages import KINDS, Codec, Header, Hello, Resume, Role, Settle


def test_a_kind_is_one_byte_and_a_header_has_one_kind():
    assert {len(kind) for kind in KINDS} == {1}
    assert len(set(KINDS.values())) == len(KINDS)


@pytest.mark.parametrize("header", KINDS.values(), ids=lambda header: header.__name__)
def test_fields_at_their_default_are_left_out(header):
    assert header.__struct_config__.omit_defaults


@pytest.mark.parametrize("header", KINDS.values(), ids=lambda header: header.__name__)
def test_unknown_fields_are_ignored(header):
    assert not header.__struct_config__.forbid_unknown_fields


@pytest.mark.parametrize("header", KINDS.values(), ids=lambda header: header.__name__)
def test_every_header_is_a_header(header):
    assert issubclass(header, Header)


def test_a_hello_needs_a_role_and_a_nonce_only():
    hello = Hello(role=Role.ADMIN, nonce=bytes(16))
    assert msgspec.json.decode(msgspec.json.encode(hello)) == {"role": "admin", "nonce": "AAAAAAAAAAAAAAAAAAAAAA=="}


def test_defaults_are_not_shared_between_headers():
    first, second = Resume(), Resume()
    first.leases.append(1)
    assert second.leases == []


def test_ten_thousand_ranges_are_the_most():
    header = {"lease": 1, "action": "ack", "ranges": [[1, 1]] * 10_000}
    assert len(msgspec.convert(header, Settle).ranges) == 10_000
    header["ranges"].append([1, 1])
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(header, Settle)


def test_codecs_and_roles_are_their_names():
    assert f"{Codec.RAW} {Role.CONSUMER}" == "raw consumer"
