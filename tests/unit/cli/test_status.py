"""The table of `zbroker status`: what is there, warnings first."""

import re
from collections.abc import Iterator
from typing import Any

from zbroker.cli import status
from zbroker.cli.answer import understood

EMPTY = {"epoch": 3, "uptime_ms": 90_061_000, "sessions": {"total": 1, "admin": 1}, "streams": {}, "warnings": []}
STREAM = {"messages": 1, "next_offset": 1}


def lines_of(found: dict[str, Any]) -> Iterator[str]:
    return status.lines_of(understood(found, "zb://a"))


def test_names_of_others_reach_no_terminal_raw_and_stay_in_line() -> None:
    evil = {"\x1b[2J\nbroker of epoch 9": STREAM, "漢字": STREAM}
    found = {**EMPTY, "streams": evil, "warnings": ["\x9b5m\nforged"], "sessions": {"total": 1, "\u202eadmin": 1}}
    lines = list(lines_of({**found, "subscriptions": {"\x1b]0;x\x07": 1}, "counters": {"\u200b": 1}}))
    assert all(line.isprintable() for line in lines)
    assert lines[0] == r"warning: \x9b5m\nforged"


def test_empty_sections_are_left_out() -> None:
    assert list(lines_of(EMPTY)) == ["broker of epoch 3, up 1 d 1 h 1 min 1 s, 1 session: 1 admin"]


def test_warnings_come_first() -> None:
    journal = {"full": True, "failed": "", "warnings": ["tmpfs"], "damage": [1]}
    lines = list(lines_of({**EMPTY, "warnings": ["w"], "journal": journal}))
    assert [line.partition(":")[0] for line in lines[:4]] == ["warning"] * 4
    assert lines[0] == "warning: w"


def test_columns_are_aligned_and_unknown_keys_ignored() -> None:
    streams = {"a": {**STREAM, "new": 2}, "longer": {**STREAM, "messages": 1_000_000}}
    lines = list(lines_of({**EMPTY, "streams": streams, "more": 1}))
    titles, first, second = lines[2:5]
    assert titles.startswith("streams  messages")
    assert first.index("1") == titles.index("messages") + 7
    assert second.startswith("longer    1000000")


def test_subscriptions_counters_and_journal_are_lists() -> None:
    found = {**EMPTY, "subscriptions": {"a.>": 2}, "counters": {"published": 1}, "journal": {"folder": "/d"}}
    text = "\n".join(lines_of(found))
    assert "a.>" in text
    assert "published" in text
    assert "/d" in text


def test_refusals_handshakes_and_cuts_are_shown_by_kind() -> None:
    guard = {
        "connections": 2,
        "accepted": 9,
        "handshakes_failed": {"protocol": 3, "auth": 0},
        "cuts": {"before_hello": 4},
    }
    text = list(lines_of({**EMPTY, "refused": {"PROTOCOL_ERROR.header": 5}, "guard": guard}))
    assert "PROTOCOL_ERROR.header  5" in text
    assert "handshake failed: protocol  3" in text
    assert "cut: before hello           4" in text
    assert not any("auth" in line for line in text)


def test_plain_programs_are_shown_when_there_are_any() -> None:
    nobody = {"publishers": 0, "subscribers": 0, "prefixes": 0}
    assert list(lines_of({**EMPTY, "plain": nobody})) == list(lines_of(EMPTY))
    assert "subscribers   2" in list(lines_of({**EMPTY, "plain": {**nobody, "subscribers": 2}}))


def test_a_fact_that_the_broker_does_not_have_is_left_out() -> None:
    journal = {"folder": "/d", "checkpoint_age_ms": None, "segments": 0}
    text = "\n".join(lines_of({**EMPTY, "journal": journal}))
    assert "checkpoint" not in text
    assert "segments" in text


def test_sizes_and_times_have_units() -> None:
    journal = {
        "bytes": 3 << 20,
        "live_bytes": 1_536,
        "sync_p50_us": 1_500,
        "checkpoint_age_ms": 61_000,
        "epoch": 1_700_000_000,
    }
    streams = {"a": {**STREAM, "kept_bytes": 5 << 30}}
    text = "\n".join(lines_of({**EMPTY, "journal": journal, "streams": streams}))
    for title, figure in (
        ("bytes", "3 MiB"),
        ("live bytes", "1.5 KiB"),
        ("sync p50", "1.5 ms"),
        ("checkpoint age", "1 min 1 s"),
    ):
        assert re.search(rf"^{title} +{figure}$", text, re.MULTILINE), title
    assert re.search(r"^a +1 +5 GiB ", text, re.MULTILINE)
    assert re.search(r"^epoch +1700000000$", text, re.MULTILINE)
