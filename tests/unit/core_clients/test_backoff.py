from __future__ import annotations

from patterns.core.backoff import Backoff


def test_waits_double_up_to_the_most():
    backoff = Backoff(100, 1_000, lambda: 0.0)
    assert [backoff.next() for _ in range(6)] == [100, 200, 400, 800, 1_000, 1_000]


def test_jitter_shortens_a_wait_by_up_to_half():
    backoff = Backoff(100, 1_000, lambda: 0.999)
    assert [backoff.next() for _ in range(3)] == [50, 100, 200]


def test_after_success_waits_begin_anew():
    backoff = Backoff(100, 1_000, lambda: 0.0)
    backoff.next()
    backoff.reset()
    assert backoff.next() == 100
