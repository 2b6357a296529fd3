from __future__ import annotations

from patterns.wire.identity import publisher_of


def test_a_publisher_is_named_by_what_does_not_tell_its_nonce():
    assert publisher_of(bytes(range(16))).hex() == "be45cb2605bf36bebde684841a28f0fd"
    assert publisher_of(bytes(16)) != publisher_of(b"\1" + bytes(15))
