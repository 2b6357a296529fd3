from __future__ import annotations

from pathlib import Path

import pytest

from zbroker.bench import compare
from zbroker.bench.compare import (
    UnknownRow,
    cases_of,
    chosen,
    disk_folder,
    names_in,
    order,
    ratios_of,
    socket_folder,
    without_missing,
)
from zbroker.bench.machine import MEMORY_FILE_SYSTEMS, file_system, machine, versions
from zbroker.bench.report import Row, Sample
from zbroker.bench.rows import BARS, FIRST_GROUPS, PLANS


def test_no_names_choose_the_first_groups_and_all_every_row() -> None:
    assert {plan.group for plan in chosen([])} == set(FIRST_GROUPS)
    assert chosen(["all"]) == list(PLANS)


def test_names_of_rows_and_groups_are_unique() -> None:
    names = [plan.name for plan in PLANS]
    assert len(set(names)) == len(names)
    groups = {plan.group for plan in PLANS}
    assert {name for name in names if name in groups} <= {"device", "durable"}  # their first row


def test_a_group_chooses_its_rows() -> None:
    assert {plan.group for plan in chosen(["request"])} == {"request"}


def test_rows_keep_the_order_of_the_table() -> None:
    assert [plan.name for plan in chosen(["live-peer", "live-proxy"])] == ["live-proxy", "live-peer"]


def test_an_unknown_row_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UnknownRow, match="connections"):
        chosen(["nothing"])
    with pytest.raises(UnknownRow, match="did you mean live-broker"):
        chosen(["live-brokr"])


def test_rows_whose_extra_is_missing_are_left_out_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "nats_is_there", lambda: False)
    kept, reasons = without_missing(chosen(["nats", "live-peer"]), over_tcp=True)
    assert [plan.name for plan in kept] == ["live-peer"]
    assert "zbroker[bench]" in reasons[0]
    assert without_missing(chosen(["live-peer"]), over_tcp=True)[1] == []


def test_a_rival_without_ipc_is_not_compared_over_ipc() -> None:
    kept, reasons = without_missing(chosen(["nats"]), over_tcp=False)
    assert kept == []
    assert "ipc" in reasons[0]


def test_a_sweep_runs_rows_at_each_size_and_those_without_a_size_once() -> None:
    cases = cases_of(chosen(["live-peer", "live-dict-peer"]), (16, 1_024))
    assert [case.name for case in cases] == ["live-peer@16", "live-peer@1024", "live-dict-peer"]
    assert [case.name for case in cases_of(chosen(["live-peer"]), (16,))] == ["live-peer"]


def test_ratios_of_a_sweep_compare_rows_of_one_size() -> None:
    def row(name: str, size: int | None, rate: float) -> Row:
        return Row(name=name, group="", label="", api="", body="", samples=[Sample(rate=rate)], size=size)

    rows = [
        row(f"{name}@{size}", size, rate)
        for name, rates in (("live-broker", (6.0, 8.0)), ("live-proxy", (2.0, 4.0)))
        for size, rate in zip((16, 1_024), rates, strict=True)
    ]
    found = ratios_of({one.name: one for one in [*rows, row("live-dict-broker", None, 2e6)]})
    assert [(ratio.size, ratio.row, ratio.value.median) for ratio in found] == [
        (16, "live-broker", 3.0),
        (1_024, "live-broker", 2.0),
        (None, "live-dict-broker", 2e6),
    ]


def test_sockets_of_ipc_have_a_short_folder_of_their_own() -> None:
    with socket_folder("tcp") as nothing:
        assert nothing is None
    with socket_folder("ipc") as folder:
        assert folder is not None
        assert len(str(folder)) < 80
    assert not folder.exists()


def test_every_bar_names_rows_that_exist() -> None:
    names = {plan.name for plan in PLANS}
    assert {name for bar in BARS for name in (bar.row, *bar.against)} <= names


def test_rows_of_a_bar_are_interleaved() -> None:
    groups = {plan.name: plan.group for plan in PLANS}
    for bar in BARS:
        assert {groups[name] for name in (bar.row, *bar.against)} == {groups[bar.row]}


def test_every_round_runs_each_row_once_and_every_second_backwards() -> None:
    two = cases_of(chosen(["live-proxy", "live-peer"]), ())
    assert [case.name for case in order(two, 2)] == ["live-proxy", "live-peer", "live-peer", "live-proxy"]


def test_names_are_separated_by_commas() -> None:
    assert names_in(" live, durable ,") == ["live", "durable"]
    assert names_in(None) == []


def test_a_folder_that_is_given_is_made_and_kept(tmp_path: Path) -> None:
    with disk_folder(tmp_path / "data") as folder:
        assert folder.is_dir()
    assert (tmp_path / "data").is_dir()


def test_a_temporary_folder_is_on_a_disk_and_goes_away() -> None:
    with disk_folder(None) as folder:
        assert file_system(folder) not in MEMORY_FILE_SYSTEMS
    assert not folder.exists()


def test_the_machine_and_the_versions_are_told() -> None:
    assert {"cpu", "cores", "kernel", "load_before"} <= set(machine())
    assert {"python", "pyzmq", "libzmq", "msgspec", "zbroker"} <= set(versions())
