from __future__ import annotations

from patterns.wire import limits


def test_a_full_batch_of_the_largest_body_fits_into_batch_bytes_max():
    assert limits.BATCH_BYTES_MAX >= limits.BODY_BYTES_MAX + limits.BATCH_BYTES_TARGET


def test_the_first_credit_admits_the_largest_batch():
    assert limits.CREDIT_BYTES >= limits.BATCH_BYTES_MAX
    assert limits.CREDIT_MESSAGES >= limits.BATCH_MESSAGES_MAX


def test_a_silent_peer_is_pinged_twice_before_it_expires():
    assert limits.EXPIRY_MS > 2 * limits.HEARTBEAT_MS


def test_a_peer_is_asked_whether_it_reads_before_it_is_told_no_more():
    assert limits.REPLIES_UNREAD_MAX < limits.REPLIES_UNREAD_CUT
