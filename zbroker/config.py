"""Settings of a broker: flags over environment over files over defaults, each checked by one definition."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from patterns.wire.address import is_loopback, parse_address
from patterns.wire.errors import BadAddress
from patterns.wire.limits import MIB

DEFAULT_BIND: Final = "tcp://127.0.0.1:7700"
DEFAULT_DATA: Final = "./zbroker-data"
_NOT_BUILT: Final = ("xsub", "xpub", "mdp", "http")
_PREFIX: Final = "ZBROKER_"
_FOREIGN: Final = frozenset(("url", "config", "test_long"))  # a client's; the file itself; the test suite's
_TRUE: Final = frozenset(("1", "true", "yes", "on"))
_FALSE: Final = frozenset(("0", "false", "no", "off"))


class ConfigurationError(Exception):
    """A setting that cannot be used; the text names it, where it stands, and what is allowed."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `zbroker run` can be told. A field is a flag, a variable ZBROKER_<FIELD> and a key of zbroker.toml.

    Attributes:
        bind: where clients connect.
        xsub, xpub, mdp, http: addresses of further doors, or "off"; not built in this version.
        data: folder of the journal; "off": no journal, no streams.
        insecure: allow an address that other machines reach, without keys.
        memory_bytes: resident memory above which the peers with most undelivered bytes are cut; 0: never.
    """

    bind: str = DEFAULT_BIND
    xsub: str = "off"
    xpub: str = "off"
    mdp: str = "off"
    http: str = "off"
    data: str = DEFAULT_DATA
    insecure: bool = False
    memory_bytes: int = 1024 * MIB

    @property
    def data_folder(self) -> str | None:
        """The journal's folder; None: none."""
        return None if self.data == "off" else self.data


def load(
    flags: Mapping[str, Any], environment: Mapping[str, str], files: Sequence[Path], explicit: Path | None = None
) -> Options:
    """The settings that hold.

    Args:
        flags: from the command line; None means not given.
        environment: of the process.
        files: looked for in this order, the first wins key by key; those that are missing are no fault.
        explicit: a file that was named, and must exist; then no other file counts.

    Raises:
        ConfigurationError: an unknown key (with a suggestion), a bad value, an unreadable file.
    """
    merged: dict[str, Any] = {}
    for file in reversed([explicit] if explicit else list(files)):
        merged.update(_from_file(file, must_exist=explicit is not None))
    merged.update(_from_environment(environment))
    merged.update({key: value for key, value in flags.items() if value is not None})
    return _check(msgspec.convert(merged, Options))


def file_places(environment: Mapping[str, str], home: Path) -> list[Path]:
    """Where a configuration file may lie, the strongest first."""
    user = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    return [Path("zbroker.toml"), user / "zbroker" / "zbroker.toml", Path("/etc/zbroker/zbroker.toml")]


def _from_file(file: Path, *, must_exist: bool) -> dict[str, Any]:
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if must_exist:
            raise ConfigurationError(f"configuration file {file} does not exist") from error
        return {}
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"configuration file {file}: {error}") from error
    return {key: _convert(key, value, f"{file}: {key}") for key, value in found.items()}


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in environment.items():
        key = name.removeprefix(_PREFIX).lower()
        if name.startswith(_PREFIX) and key not in _FOREIGN:
            found[key] = _convert(key, text, name)
    return found


def _convert(key: str, value: Any, where: str) -> Any:
    """A value of the type that its field has; text from the environment is read as that type."""
    kinds = {field.name: field.type for field in msgspec.structs.fields(Options)}
    kind = kinds.get(key)
    if kind is None:
        near = difflib.get_close_matches(key, kinds, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(kinds)}"
        raise ConfigurationError(f"{where}: unknown setting {key!r}{hint}")
    if kind is bool and isinstance(value, str):
        if value.lower() not in _TRUE | _FALSE:
            raise ConfigurationError(f"{where}: {value!r} is neither true nor false")
        return value.lower() in _TRUE
    try:
        return msgspec.convert(value, kind, strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{where}: {error}") from error


def _check(options: Options) -> Options:
    for name in _NOT_BUILT:
        value = getattr(options, name)
        if value != "off":
            raise ConfigurationError(
                f"{name} = {value!r}: not built yet in this version; leave it away, or set it to off"
            )
    if not options.bind.startswith(("tcp://", "ipc://")):
        raise ConfigurationError(f"bind = {options.bind!r}: expected tcp://host:port or ipc://path")
    try:
        parse_address(options.bind)  # libzmq itself would take a port of 99999, modulo 65536
    except BadAddress as error:
        raise ConfigurationError(f"bind: {error.detail}") from error
    if options.memory_bytes < 0:
        raise ConfigurationError(f"memory_bytes = {options.memory_bytes}: 0 (no bound) or more")
    if not is_loopback(options.bind) and not options.insecure:
        raise ConfigurationError(
            f"bind = {options.bind!r} can be reached from other machines, and anybody there could read, write and fill the "
            "disk; bind 127.0.0.1, or say --insecure if the network itself is trusted"
        )
    return options
