"""What happens in the engine and the guard, as records: nothing is left without a name."""

from __future__ import annotations

import typing

import msgspec
import pytest

from patterns.io.guard_account import Cut, CutReason
from zbroker.core import events
from zbroker.processes.logbook import json_line
from zbroker.processes.news import WARNINGS, news_of, news_of_cut


@pytest.mark.parametrize("kind", typing.get_args(events.Event))
def test_every_event_has_a_record_that_json_can_express(kind):
    event = kind(*(False if field.type is bool else "x" for field in msgspec.structs.fields(kind)))
    level, name, fields = news_of(event)
    assert name.islower()
    assert fields
    assert json_line(0, level, name, fields)
    assert not {"time", "level", "event"} & set(fields)


@pytest.mark.parametrize("key", [*WARNINGS, "anything else"])
def test_a_warning_and_its_end_have_different_names_and_the_same_key(key):
    level, raised, fields = news_of(events.WarningRaised(key, "text"))
    calm, gone, same = news_of(events.WarningGone(key))
    assert (level in ("warning", "error"), calm) == (True, "info")
    assert raised != gone
    assert fields["warning"] == same["warning"] == key


def test_a_cut_tells_who_why_and_how_much():
    level, name, fields = news_of_cut(Cut(CutReason.BEFORE_HELLO, "10.0.0.1:99", 200_000, 131_072, 5))
    assert (level, name) == ("warning", "guard_cut")
    assert fields == {
        "remote": "10.0.0.1:99",
        "reason": "before_hello",
        "undelivered_bytes": 200_000,
        "allowance_bytes": 131_072,
    }
