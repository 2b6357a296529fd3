from __future__ import annotations

import msgspec
import pytest

from patterns.wire.records import Damage, LostRange, RecordKind, decode_lost, encode_lost


def test_an_account_of_damage_survives_the_disk():
    damage = [Damage(5, 7, 2, 4096, 0, [LostRange(5, RecordKind.APPEND, 3, 100, 10)], "body")]
    assert decode_lost(encode_lost(damage)) == damage


def test_other_bytes_are_no_account():
    with pytest.raises(msgspec.DecodeError):
        decode_lost(b"\xc1")


def test_numbers_on_the_disk_are_never_reassigned():
    assert {kind.name: kind.value for kind in RecordKind} == {
        "PAD": 0, "APPEND": 1, "OPS": 2, "TXN": 3, "CATALOG": 4, "SEAL": 5, "WITNESS": 6, "LOST": 7,
    }  # fmt: skip
