from __future__ import annotations

from pathlib import Path

import pytest

from zbroker.bench.compare import UnknownRow, chosen, disk_folder, names_in, order
from zbroker.bench.machine import MEMORY_FILE_SYSTEMS, file_system, machine, versions
from zbroker.bench.rows import BARS, PLANS


def test_no_names_choose_every_row() -> None:
    assert chosen([]) == list(PLANS)


def test_a_group_chooses_its_rows() -> None:
    assert {plan.group for plan in chosen(["request"])} == {"request"}


def test_rows_keep_the_order_of_the_table() -> None:
    assert [plan.name for plan in chosen(["live-peer", "live-proxy"])] == ["live-proxy", "live-peer"]


def test_an_unknown_row_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UnknownRow, match="live-proxy"):
        chosen(["nothing"])


def test_every_bar_names_rows_that_exist() -> None:
    names = {plan.name for plan in PLANS}
    assert {name for bar in BARS for name in (bar.row, *bar.against)} <= names


def test_rows_of_a_bar_are_interleaved() -> None:
    groups = {plan.name: plan.group for plan in PLANS}
    for bar in BARS:
        assert {groups[name] for name in (bar.row, *bar.against)} == {groups[bar.row]}


def test_every_round_runs_each_row_once_and_every_second_backwards() -> None:
    two = chosen(["live-proxy", "live-peer"])
    assert [plan.name for plan in order(two, 2)] == ["live-proxy", "live-peer", "live-peer", "live-proxy"]


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
