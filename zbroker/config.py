"""Settings of a broker: flags over environment over files over defaults, each checked by one definition."""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec

from patterns.wire.address import BROKER_PORT, is_loopback, parse_address
from patterns.wire.errors import BadAddress
from patterns.wire.limits import MIB, SECONDS_MAX

DEFAULT_BIND: Final = "tcp://127.0.0.1:7700"
DEFAULT_DATA: Final = "./zbroker-data"
DRAIN_S_MAX: Final = 3_600  # whoever waits longer for a broker to stop has a deadline of his own
GROUP_IDLE_S_MAX: Final = int(SECONDS_MAX)  # as of `idle_expiry_s` in a group's own configuration
_PLAIN_PORTS: Final = {"xsub": 7701, "xpub": 7702}
_NOT_BUILT: Final = ("mdp", "http")
_FILE_BYTES_MAX: Final = MIB // 16  # fifty times what all settings with their comments take
_LINE_BYTES_MAX: Final = 4096  # tomllib takes a key's dots times themselves: 12 s for 50,000 of them
BYTE_COUNT_MAX: Final = 2**63 - 1  # what the kernel counts in
_BYTE_COUNT: Final = re.compile(r"([0-9]{1,19})([KMG]?)", re.IGNORECASE | re.ASCII)
_SHIFTS: Final = {"": 0, "K": 10, "M": 20, "G": 30}
_PREFIX: Final = "ZBROKER_"
# a client's; the file itself; the test suite's
_FOREIGN: Final = frozenset(("url", "config", "test_long", "fuzz_s", "fuzz_folder"))
# what Kubernetes and Docker set in every container beside a service of our name
_SERVICE_LINK: Final = re.compile(r"name|service_host|(service_)?port(_.*)?|env_.*")
_SAID_OTHERWISE: Final = {"no_data": 'data = "off"'}
_WANTED: Final = {str: "text in quotes", int: "a whole number", bool: "true or false"}
LogFormat = Literal["text", "json"]
PlainCodec = Literal["raw", "json", "msgpack"]
DuplicateKeys = Literal["last", "refuse"]
LogLevel = Literal["debug", "info", "warning", "error"]
_KINDS: Final = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_TRUE: Final = frozenset(("1", "true", "yes", "on"))
_FALSE: Final = frozenset(("0", "false", "no", "off"))


class ConfigurationError(Exception):
    """A setting that cannot be used; the text names it, where it stands, and what is allowed."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `zbroker run` can be told. A field is a flag, a variable ZBROKER_<FIELD> and a key of zbroker.toml.

    Attributes:
        bind: where clients connect.
        xsub: where plain ZeroMQ publishers connect, or "off"; "auto": tcp://127.0.0.1:7701 when `bind` names port 7700.
        xpub: where plain ZeroMQ subscribers connect; likewise, port 7702.
        plain_codec: what the bodies of plain publishers are labelled as; json and msgpack are checked.
        duplicate_keys: a map with the same key twice is translated with the last of them, or refused as UNTRANSLATABLE.
        mdp, http: addresses of further doors, or "off"; not built in this version.
        data: folder of the journal; "off": no journal, no streams.
        insecure: allow an address that other machines reach, without keys.
        memory_bytes: resident memory above which the peers with most undelivered bytes are cut; 0: never.
        stream_bytes: so much a stream keeps beyond what its groups have yet to process; then the oldest goes.
        stream_quota_bytes: what a stream may keep on disk in all; then its producers are refused with STREAM_FULL; 0: no bound.
        folder_quota_bytes: what all streams together may; 0: no bound but the disk's own.
        group_idle_s: a group that is made by first use is deleted once it had no member for so long; 0: never.
        auto_create: streams and groups are made by first use; else they must be made before, by `zbroker stream create`.
        drain_s: so long the requests that repliers work on may take to finish after SIGTERM.
        log_format: of the lines on standard error: for people, or JSON objects.
        log_level: what is less than this is not logged.
    """

    bind: str = DEFAULT_BIND
    xsub: str = "auto"
    xpub: str = "auto"
    plain_codec: PlainCodec = "raw"
    duplicate_keys: DuplicateKeys = "last"
    mdp: str = "off"
    http: str = "off"
    data: str = DEFAULT_DATA
    insecure: bool = False
    memory_bytes: int = 1024 * MIB
    stream_bytes: int = 4096 * MIB
    stream_quota_bytes: int = 16384 * MIB
    folder_quota_bytes: int = 0
    group_idle_s: int = 0
    auto_create: bool = True
    drain_s: int = 5
    log_format: LogFormat = "text"
    log_level: LogLevel = "info"

    @property
    def data_folder(self) -> str | None:
        """The journal's folder; None: none."""
        return None if self.data == "off" else self.data

    @property
    def xsub_address(self) -> str | None:
        """Where plain publishers connect; None: nowhere."""
        return self._plain_address("xsub")

    @property
    def xpub_address(self) -> str | None:
        """Where plain subscribers connect; None: nowhere."""
        return self._plain_address("xpub")

    def _plain_address(self, name: str) -> str | None:
        said: str = getattr(self, name)
        if said == "auto":  # another port than 7700 is a second broker, which must not collide with the first one
            said = f"tcp://127.0.0.1:{_PLAIN_PORTS[name]}" if self.bind.endswith(f":{BROKER_PORT}") else "off"
        return None if said == "off" else said


_KINDS_OF_SETTINGS: Final = {field.name: field.type for field in msgspec.structs.fields(Options)}


class Origin(msgspec.Struct, frozen=True):
    """Where a setting comes from.

    Attributes:
        source: what kind of place.
        name: the flag, the variable, or the absolute path of the file; None of a default.
    """

    source: Literal["flag", "environment", "file", "default"]
    name: str | None = None

    def __str__(self) -> str:
        return self.name or self.source


class Settings(msgspec.Struct, frozen=True):
    """The settings that hold, the origin of each by its name, and the variables ZBROKER_... that are none of them."""

    options: Options
    origins: dict[str, Origin]
    ignored: tuple[str, ...] = ()


def load(
    flags: Mapping[str, Any], environment: Mapping[str, str], files: Sequence[Path], explicit: Path | None = None
) -> Settings:
    """The settings that hold, checked; see gather() and check().

    Raises:
        ConfigurationError: an unknown key (with a suggestion), a bad value, an unreadable file.
    """
    settings = gather(flags, environment, files, explicit)
    check(settings)
    return settings


def gather(
    flags: Mapping[str, Any], environment: Mapping[str, str], files: Sequence[Path], explicit: Path | None = None
) -> Settings:
    """The settings as they are said, each of the type it must have.

    Args:
        flags: from the command line; None means not given.
        environment: of the process.
        files: looked for in this order, the first wins key by key; those that are missing are no fault.
        explicit: a file that was named, and must exist; then no other file counts.

    Raises:
        ConfigurationError: an unknown key (with a suggestion), a value of the wrong type, an unreadable file.
    """
    values: dict[str, Any] = {}
    origins = {field.name: Origin("default") for field in msgspec.structs.fields(Options)}
    for file in reversed([explicit] if explicit else list(files)):
        found = _from_file(file, must_exist=explicit is not None)
        values.update(found)
        origins.update(dict.fromkeys(found, Origin("file", str(file.absolute()))))
    variables = {name: name.removeprefix(_PREFIX).lower() for name in environment if name.startswith(_PREFIX)}
    ignored = tuple(name for name, key in variables.items() if _is_anothers(key))
    for name, key in variables.items():
        if name not in ignored and key not in _FOREIGN:
            values[key], origins[key] = _convert_text(key, environment[name], name), Origin("environment", name)
    for key, value in flags.items():
        if value is not None:
            flag = f"--{key.replace('_', '-')}"
            values[key], origins[key] = _convert(key, value, flag), Origin("flag", flag)
    return Settings(msgspec.convert(values, Options), origins, ignored)


def file_places(environment: Mapping[str, str]) -> list[Path]:
    """Where a configuration file may lie, the strongest first; XDG_CONFIG_HOME and HOME say where the user's is."""
    places = [Path("zbroker.toml"), Path("/etc/zbroker/zbroker.toml")]
    home = environment.get("HOME")  # not Path.home(): a container's user may have neither a home nor a name
    user = environment.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else None)
    if user is not None:
        places.insert(1, Path(user, "zbroker", "zbroker.toml"))
    return places


def _from_file(file: Path, *, must_exist: bool) -> dict[str, Any]:
    try:
        found = tomllib.loads(_content_of(file).decode("utf-8-sig"))  # some editors put a mark before the text
    except (FileNotFoundError, NotADirectoryError) as error:
        if must_exist:
            raise ConfigurationError(f"configuration file {file} does not exist") from error
        return {}
    except OSError as error:
        raise ConfigurationError(f"configuration file {file} cannot be read: {error.strerror or error}") from error
    except RecursionError as error:
        raise ConfigurationError(f"configuration file {file} is no TOML of settings: nested too deep") from error
    except ValueError as error:  # no UTF-8, no TOML, or a number of thousands of digits
        raise ConfigurationError(f"configuration file {file} is no TOML: {error}") from error
    return {key: _convert(key, value, f"{file}: {key}") for key, value in found.items()}


def _content_of(file: Path) -> bytes:
    """All of a file, if it is one that settings could be in. /dev/null is a common way to say none.

    Raises:
        OSError: it cannot be read.
        ConfigurationError: it is a FIFO, a device or a folder, or too long: /dev/zero never ends.
    """
    _require_file(file, os.stat(file))  # not even opened: whoever writes into a FIFO would hear of it
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_file(file, os.fstat(descriptor))  # it may be another one by now
        content = b""
        while len(content) <= _FILE_BYTES_MAX and (more := os.read(descriptor, _FILE_BYTES_MAX + 1 - len(content))):
            content += more
    finally:
        os.close(descriptor)
    if len(content) > _FILE_BYTES_MAX:
        raise ConfigurationError(f"configuration file {file} has more than {_FILE_BYTES_MAX} bytes, so it is none")
    for number, line in enumerate(content.splitlines(), start=1):
        if len(line) > _LINE_BYTES_MAX:
            raise ConfigurationError(
                f"configuration file {file}: line {number} has {len(line)} bytes, at most {_LINE_BYTES_MAX}"
            )
    return content


def _require_file(file: Path, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode) or (stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev):
        return
    kind = next((name for is_one, name in _KINDS if is_one(found.st_mode)), "something else")
    raise ConfigurationError(f"configuration file {file} is {kind}; write the settings into a regular file")


def _is_anothers(key: str) -> bool:
    """Whether a variable is not meant for a broker: one that is nearly a setting is a slip, and those are refused."""
    if key in _FOREIGN or key in _KINDS_OF_SETTINGS or key in _SAID_OTHERWISE:
        return False
    return bool(_SERVICE_LINK.fullmatch(key)) or not _near(key)


def _near(key: str) -> list[str]:
    return difflib.get_close_matches(key, _KINDS_OF_SETTINGS, n=1)


def _convert(key: str, value: Any, where: str) -> Any:
    """A value that has the type of its field already, as a file's and a flag's must."""
    kind = _kind_of(key, where)
    if isinstance(value, str) and not value.isprintable():  # a byte that is not UTF-8, or what a terminal acts on
        raise ConfigurationError(f"{where}: {value!r} holds characters that cannot be printed")
    choices = get_args(kind)
    if choices and value not in choices:
        raise ConfigurationError(f"{where}: {value!r} is none of {', '.join(choices)}")
    if kind is int and isinstance(value, str) and key.endswith("_bytes"):
        return _convert_text(key, value, where)
    if kind in (int, bool) and isinstance(value, str):
        raise ConfigurationError(f"{where}: {value!r} is a string; write {_WANTED[kind]}, without quotes")
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{where}: {value!r} is not {_WANTED.get(kind, 'one of the choices')}") from error


def _convert_text(key: str, text: str, where: str) -> Any:
    """A value from the environment, where everything is text: it is read as the type of its field."""
    kind = _kind_of(key, where)
    if kind is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise ConfigurationError(f"{where}: {text!r} is neither true nor false")
        return text.lower() in _TRUE
    if kind is int:
        try:
            return byte_count(text) if key.endswith("_bytes") else msgspec.convert(text, int, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"{where}: {text!r} is no whole number") from error
        except ValueError as error:
            raise ConfigurationError(f"{where}: {text!r}: {error}") from error
    return _convert(key, text, where)


def _kind_of(key: str, where: str) -> Any:
    """The type of a setting. Raises ConfigurationError: there is none of that name."""
    kind = _KINDS_OF_SETTINGS.get(key)
    if kind is None:
        near = _near(key)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(_KINDS_OF_SETTINGS)}"
        hint = f"; write {_SAID_OTHERWISE[key]}" if key in _SAID_OTHERWISE else hint
        raise ConfigurationError(f"{where}: unknown setting {key!r}{hint}")
    return kind


def byte_count(text: str) -> int:
    """A number of bytes as people write it: 1073741824, 1048576K, 1024M or 1G, all of them powers of 1024.

    Raises:
        ValueError: it is none, or more than 63 bits hold.
    """
    found = _BYTE_COUNT.fullmatch(text)
    count = int(found[1]) << _SHIFTS[found[2].upper()] if found else BYTE_COUNT_MAX + 1
    if count > BYTE_COUNT_MAX:
        raise ValueError("a number of bytes, such as 1073741824, or with K, M or G behind it: 1G")
    return count


def check(settings: Settings) -> None:
    """Hold the settings against what a broker can do. Raises ConfigurationError, with the origin of the bad one."""
    for name, complaint in _complaints(settings.options):
        origin = settings.origins[name]
        value = getattr(settings.options, name)
        said = f"{origin}: " if origin.source in ("environment", "file") else ""
        raise ConfigurationError(f"{said}{name} = {value!r}: {complaint}")


def _complaints(options: Options) -> Iterator[tuple[str, str]]:
    """What is wrong: the setting's name, and why it cannot hold."""
    for name in _NOT_BUILT:
        if getattr(options, name) != "off":
            yield name, "not built yet in this version; leave it away, or set it to off"
    yield from _complaints_of_address("bind", options.bind, options.insecure)
    for name in _PLAIN_PORTS:
        value = getattr(options, name)
        if value not in ("auto", "off"):
            yield from _complaints_of_address(name, value, options.insecure, " or off")
    if not options.data:
        yield "data", "a folder, or off"
    if not 0 <= options.memory_bytes <= BYTE_COUNT_MAX:
        yield "memory_bytes", f"0 (no bound) to {BYTE_COUNT_MAX} bytes"
    if not 0 <= options.stream_bytes <= BYTE_COUNT_MAX:
        yield "stream_bytes", f"0 (nothing that all groups have processed) to {BYTE_COUNT_MAX} bytes"
    for name in ("stream_quota_bytes", "folder_quota_bytes"):
        if not 0 <= getattr(options, name) <= BYTE_COUNT_MAX:
            yield name, f"0 (no bound) to {BYTE_COUNT_MAX} bytes"
    if not 0 <= options.group_idle_s <= GROUP_IDLE_S_MAX:
        yield "group_idle_s", f"0 (never) to {GROUP_IDLE_S_MAX:,} seconds"
    if not 0 <= options.drain_s <= DRAIN_S_MAX:
        yield "drain_s", f"0 to {DRAIN_S_MAX} seconds"


def _complaints_of_address(name: str, address: str, insecure: bool, more: str = "") -> Iterator[tuple[str, str]]:
    if not address.startswith(("tcp://", "ipc://")):
        yield name, f"expected tcp://host:port or ipc://path{more}"
    try:
        parse_address(address)  # libzmq itself would take a port of 99999, modulo 65536
    except BadAddress as error:
        yield name, error.detail
    if not is_loopback(address) and not insecure:
        yield (
            name,
            "it can be reached from other machines, and anybody there could read, write and fill the disk; "
            "bind 127.0.0.1, or say --insecure if the network itself is trusted",
        )
