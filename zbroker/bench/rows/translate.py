"""What translation costs: a sender that writes JSON and a receiver that reads msgpack, beside the same bodies untranslated."""

from __future__ import annotations

from typing import Final

from zbroker.bench.report import Sample
from zbroker.bench.rows.durable import BULK, bulk
from zbroker.bench.rows.live import DICT_BODY, PUBLISH, through_broker
from zbroker.bench.rows.plan import DICT, Plan, Settings, bars

_PLAIN: Final = ("msgpack", "msgpack")
_TRANSLATED: Final = ("json", "msgpack")
_HONOURS: Final = frozenset(("transport",))
_JSON_BODY: Final = "dict of six fields, JSON to msgpack"


def _live_plain(settings: Settings) -> Sample:
    return through_broker(settings, body=DICT, codecs=_PLAIN)


def _live(settings: Settings) -> Sample:
    return through_broker(settings, body=DICT, codecs=_TRANSLATED)


def _durable_plain(settings: Settings) -> Sample:
    return bulk(settings, body=DICT, codecs=_PLAIN)


def _durable(settings: Settings) -> Sample:
    return bulk(settings, body=DICT, codecs=_TRANSLATED)


PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(name=name, group="translate", label=label, api=api, body=body, run=run, honours=_HONOURS)
    for name, label, api, body, run in (
        ("translate-live-none", "live through the broker, as sent", PUBLISH, DICT_BODY, _live_plain),
        ("translate-live", "live through the broker, translated", PUBLISH, _JSON_BODY, _live),
        ("translate-durable-none", "on disk, as sent", BULK, DICT_BODY, _durable_plain),
        ("translate-durable", "on disk, translated", BULK, _JSON_BODY, _durable),
    )
)

BARS: Final = bars(
    ("translate-live", "rate", ("translate-live-none",), None, True, "live, JSON to msgpack / untranslated"),
    ("translate-durable", "rate", ("translate-durable-none",), 0.5, True, "durable, JSON to msgpack / untranslated"),
)
