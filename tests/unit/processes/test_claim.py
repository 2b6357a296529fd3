"""A claim is seen by others as long as its process lives, and by nobody where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from zbroker.processes import claim as claims
from zbroker.processes.claim import Claim

HOLDER = """
import sys
from zbroker.processes.claim import Claim
Claim(sys.argv[1]).take()
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_PAUSE_S", 0)


def test_a_claim_is_anothers_until_it_is_released(tmp_path: Path) -> None:
    first, second = Claim(str(tmp_path)), Claim(str(tmp_path))
    assert not second.is_another()
    first.take()
    assert second.is_another()
    assert not first.is_another()
    first.release()
    assert not second.is_another()


def test_who_looks_hinders_neither_others_who_look_nor_who_takes_it(tmp_path: Path) -> None:
    for _ in range(3):
        assert not Claim(str(tmp_path)).is_another()
    taken = Claim(str(tmp_path))
    taken.take()
    assert Claim(str(tmp_path)).is_another()
    taken.release()
    taken.release()


def test_a_claim_goes_with_its_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "taken\n"
        assert Claim(str(tmp_path)).is_another()
        holder.kill()
        holder.wait()
        assert not Claim(str(tmp_path)).is_another()


def test_where_there_is_nothing_to_lock_nobody_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Claim(str(tmp_path / "none"))
    gone.take()
    assert not Claim(str(tmp_path / "none")).is_another()

    def no_locks(*_: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(claims.fcntl, "flock", no_locks)
    claim = Claim(str(tmp_path))
    claim.take()
    assert not Claim(str(tmp_path)).is_another()
    claim.release()
