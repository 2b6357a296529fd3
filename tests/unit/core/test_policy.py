"""What holds where nothing else is said."""

from zbroker.core.policy import DEFAULT_POLICY, no_stream


def test_streams_are_made_by_first_use_and_bounded() -> None:
    assert DEFAULT_POLICY.auto_create
    assert 0 < DEFAULT_POLICY.stream_bytes < DEFAULT_POLICY.stream_quota_bytes


def test_a_stream_that_is_not_made_by_use_says_how_to_make_it() -> None:
    assert "zbroker stream create orders" in no_stream("orders").detail
