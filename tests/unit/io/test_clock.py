from patterns.io import clock


def test_skipped_time_has_passed_and_stays_so() -> None:
    before, skipped = clock.clock(), clock.skipped_us()
    clock.skip(5_000_000)
    assert clock.clock() - before >= 5_000_000
    assert clock.skipped_us() == skipped + 5_000_000
