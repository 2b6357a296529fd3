"""`zbroker bench diff`: what two kept results say about a change, and what they cannot say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, Final

import msgspec

from zbroker.bench.figures import Figure
from zbroker.bench.report import FIGURES, FORMAT, Ratio, Report, Row

ROUNDS_MIN: Final = (
    3  # with fewer, ends that do not overlap say nothing: of 2 and 2 rounds, one in three pairs has that by chance
)
LEAST: Final = 0.03  # a smaller change is not told from none: two runs of the same code differ by as much
# Not bytes_rate, which is rate times a size, nor max_us, which one hiccup decides.
_JUDGED: Final = tuple(field for field in FIGURES if field not in ("bytes_rate", "max_us"))
_SAME_MACHINE: Final = ("cpu", "cores", "system", "architecture")
_SAME_RUN: Final = ("seconds", "size", "transport", "api", "rate", "connections", "backlog")
_BUSY: Final = 0.5  # of the cores; a figure made beside others' load says little
_DEFAULTS: Final = {"transport": "tcp", "api": "sync", "rate": None}  # of results that are older than the choice
_UNTOLD: Final = object()


class NotAResult(ValueError):
    """A file that no `zbroker bench` has written, or a newer one."""


class Verdict(StrEnum):
    """What became of one figure."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "within noise"
    UNKNOWN = "too few rounds"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One figure before and after.

    Attributes:
        name: the row, or the text of a ratio.
        field: one of FIGURES.
        percent: of the medians; above 0 is more, which need not be better.
        worse_percent: how much worse it became; below 0: better.
        rounds: how many each side has.
    """

    name: str
    field: str
    before: Figure
    after: Figure
    percent: float
    worse_percent: float
    rounds: tuple[int, int]
    verdict: Verdict


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """Two results side by side.

    Attributes:
        comparable: whether figures may be compared; else only ratios, which a machine's speed leaves alone.
        remarks: what makes it doubtful.
        figures, ratios: what both have.
        only_before, only_after: rows that one of them has.
    """

    comparable: bool
    remarks: list[str]
    figures: list[Change]
    ratios: list[Change]
    only_before: list[str]
    only_after: list[str]

    def regressions(self, percent: float) -> list[Change]:
        """What became worse by more than this, beyond noise; of the figures only if they may be compared."""
        judged = [*(self.figures if self.comparable else ()), *self.ratios]
        return [change for change in judged if change.verdict is Verdict.WORSE and change.worse_percent > percent]


def read(data: bytes) -> Report:
    """A kept result. Raises NotAResult."""
    try:
        found = msgspec.json.decode(data, type=Report)
    except msgspec.DecodeError as error:
        raise NotAResult(f"not a result of `zbroker bench --json`: {error}") from error
    if found.format > FORMAT:
        raise NotAResult(f"format {found.format} is newer than this zbroker, which knows {FORMAT}")
    return found


def diff(before: Report, after: Report) -> Diff:
    """What changed from one to the other."""
    old = {row.name: row for row in before.rows}
    new = {row.name: row for row in after.rows}
    differing = list(_differences(before, after))
    return Diff(
        comparable=not differing,
        remarks=[*differing, *_doubts("before", before), *_doubts("after", after)],
        figures=[change for name, row in old.items() if name in new for change in _rows(row, new[name])],
        ratios=list(_ratios(before, after)),
        only_before=[name for name in old if name not in new],
        only_after=[name for name in new if name not in old],
    )


def _differences(before: Report, after: Report) -> Iterator[str]:
    for where, keys, old, new in (
        ("machine", _SAME_MACHINE, before.machine, after.machine),
        ("disk", ("file_system",), before.disk, after.disk),
        ("settings", _SAME_RUN, before.settings, after.settings),
    ):
        for key in keys:
            first, second = old.get(key, _DEFAULTS.get(key, _UNTOLD)), new.get(key, _DEFAULTS.get(key, _UNTOLD))
            if first != second and _UNTOLD not in (first, second):
                yield f"{where}: {key} was {first}, is {second}: figures are not compared, ratios are"


def _doubts(which: str, report: Report) -> Iterator[str]:
    load, cores = report.machine.get("load_before"), report.machine.get("cores")
    if load is not None and cores and load > cores * _BUSY:
        yield f"{which}: the machine was busy with something else (load {load:.1f} on {cores} cores)"
    rounds = min((len(row.samples) for row in report.rows), default=0)
    if rounds < ROUNDS_MIN:
        yield f"{which}: {rounds} rounds; at least {ROUNDS_MIN} are needed to tell a change from noise (--repeat)"
    spoiled = [row.name for row in report.rows if row.lost or row.damaged]
    if spoiled:
        yield f"{which}: messages were lost or damaged in {', '.join(spoiled)}: their speed says nothing"


def _rows(before: Row, after: Row) -> Iterator[Change]:
    for field in _JUDGED:
        old, new = before.figure(field), after.figure(field)
        if old is None or new is None or old.median <= 0:
            continue
        if field == "rate" and before.values("offered"):
            continue  # it was asked for
        rounds = len(before.values(field)), len(after.values(field))
        yield _change(before.name, field, old, new, rounds, FIGURES[field])


def _ratios(before: Report, after: Report) -> Iterator[Change]:
    def keyed(ratios: Iterable[Ratio]) -> dict[tuple[Any, ...], Ratio]:
        return {(one.row, one.field, one.against, one.size): one for one in ratios if one.against}

    def rounds(report: Report, ratio: Ratio) -> int:
        names = (ratio.row, *ratio.against)
        return min(len(row.samples) for row in report.rows if row.name.partition("@")[0] in names)

    new = keyed(after.ratios)
    for key, ratio in keyed(before.ratios).items():
        if key in new and ratio.value.median > 0:
            both = rounds(before, ratio), rounds(after, new[key])
            text = ratio.text if ratio.size is None else f"{ratio.text}, {ratio.size} B"
            yield _change(text, ratio.field, ratio.value, new[key].value, both, ratio.at_least)


def _change(
    name: str, field: str, before: Figure, after: Figure, rounds: tuple[int, int], more_is_better: bool
) -> Change:
    part = after.median / before.median - 1
    worse = -part if more_is_better else part
    apart = after.low > before.high or after.high < before.low
    if min(rounds) < ROUNDS_MIN:
        verdict = Verdict.UNKNOWN
    elif not apart or abs(part) < LEAST:
        verdict = Verdict.SAME
    else:
        verdict = Verdict.WORSE if worse > 0 else Verdict.BETTER
    return Change(
        name=name,
        field=field,
        before=before,
        after=after,
        percent=part * 100,
        worse_percent=worse * 100,
        rounds=rounds,
        verdict=verdict,
    )


def to_json(found: Diff, regressions: list[Change] | None) -> bytes:
    """One JSON object; `regressions` where a limit was asked for."""
    plain: dict[str, Any] = msgspec.to_builtins(found)
    if regressions is not None:
        plain["regressions"] = msgspec.to_builtins(regressions)
    return msgspec.json.encode(plain)
