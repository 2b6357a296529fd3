"""`zbroker config show`: the settings, and where they come from."""

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from zbroker.cli.exits import BAD_CONFIGURATION, USAGE
from zbroker.cli.main import main
from zbroker.config import Options


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))


def show(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, ["config", "show", *arguments], env=environment)


def test_what_is_printed_is_toml_that_says_the_same(tmp_path: Path) -> None:
    printed = show("--data", 'a "quoted" ünï', "--insecure", "--origin").stdout
    found = tomllib.loads(printed)
    assert found["data"] == 'a "quoted" ünï'
    assert found["insecure"] is True
    assert set(found) == set(Options.__struct_fields__)
    (tmp_path / "zbroker.toml").write_text(printed)
    assert tomllib.loads(show().stdout) == found


def test_each_origin_is_told(tmp_path: Path) -> None:
    (tmp_path / "xdg" / "zbroker").mkdir(parents=True)
    user = tmp_path / "xdg" / "zbroker" / "zbroker.toml"
    user.write_text('log_level = "error"\nbind = "tcp://127.0.0.1:1"\ndata = "user"\n')
    (tmp_path / "zbroker.toml").write_text('data = "here"\n')
    lines = show("--origin", "--log-format", "json", ZBROKER_BIND="tcp://127.0.0.1:2").stdout.splitlines()
    assert 'bind = "tcp://127.0.0.1:2"  # ZBROKER_BIND' in lines
    assert f'data = "here"  # {tmp_path}/zbroker.toml' in lines
    assert f'log_level = "error"  # {user}' in lines
    assert 'log_format = "json"  # --log-format' in lines
    assert 'http = "off"  # default' in lines


def test_as_json_with_and_without_origins() -> None:
    assert json.loads(show("--json", "--no-data").stdout)["data"] == "off"
    found = json.loads(show("--json", "--origin", ZBROKER_MEMORY_BYTES="5").stdout)
    assert found["memory_bytes"] == {"value": 5, "source": "environment", "name": "ZBROKER_MEMORY_BYTES"}
    assert found["bind"] == {"value": Options().bind, "source": "default", "name": None}


def test_bytes_may_have_a_suffix() -> None:
    assert json.loads(show("--json", "--memory-bytes", "512M").stdout)["memory_bytes"] == 512 << 20


def test_a_setting_that_cannot_hold_is_shown_and_then_refused() -> None:
    result = show("--origin", ZBROKER_MDP="tcp://127.0.0.1:1")
    assert result.exit_code == BAD_CONFIGURATION
    assert 'mdp = "tcp://127.0.0.1:1"  # ZBROKER_MDP' in result.stdout
    assert "not built yet" in result.stderr


def test_variables_that_are_no_settings_are_told_as_ignored() -> None:
    printed = show(ZBROKER_PORT="tcp://10.0.0.1:7700").stdout
    assert printed.endswith("# ignored, no settings: ZBROKER_PORT\n")
    assert set(tomllib.loads(printed)) == set(Options.__struct_fields__)


def test_an_unknown_key_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "zbroker.toml").write_text('dta = "x"\n')
    unknown = show()
    assert (unknown.exit_code, unknown.stdout) == (BAD_CONFIGURATION, "")
    assert "zbroker.toml: dta: unknown setting 'dta'; did you mean 'data'?" in unknown.stderr
    assert show("--config", "nothing.toml").exit_code == BAD_CONFIGURATION
    assert "nothing.toml does not exist" in show(ZBROKER_CONFIG="nothing.toml").stderr


def test_wrong_usage_is_told() -> None:
    assert show("--log-level", "loud").exit_code == USAGE
    assert show("--memory-bytes", "-1").exit_code == USAGE
    assert "with K, M or G" in show("--memory-bytes", "1T").stderr
    assert show("--data", "x", "--no-data").exit_code == USAGE


def test_what_auto_comes_to_stands_behind_it() -> None:
    assert 'xsub = "auto"  # auto is tcp://127.0.0.1:7701' in show().stdout.splitlines()
    other = show("--origin", "--bind", "tcp://127.0.0.1:7800").stdout.splitlines()
    assert 'xpub = "auto"  # default; auto is off, because bind names another port than 7700' in other
    found = json.loads(show("--json", "--origin").stdout)
    assert found["xpub"] == {"value": "auto", "source": "default", "name": None, "auto": "tcp://127.0.0.1:7702"}
