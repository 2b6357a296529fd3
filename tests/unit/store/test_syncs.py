"""Percentiles of the last syncs."""

from zbroker.store.syncs import KEPT, Syncs


def test_none_yet_is_zero() -> None:
    assert Syncs().status() == {"syncs": 0, "last_sync_us": 0, "sync_p50_us": 0, "sync_p99_us": 0}


def test_percentiles_are_of_the_last_ones_and_the_count_is_of_all() -> None:
    syncs = Syncs()
    for took in [99_999] * 100 + list(range(KEPT)):
        syncs.note(took)
    assert syncs.status() == {
        "syncs": KEPT + 100,
        "last_sync_us": KEPT - 1,
        "sync_p50_us": KEPT // 2,
        "sync_p99_us": int(KEPT * 0.99),
    }
