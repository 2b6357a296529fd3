"""What the client commands share: their options, how they end, and how they let go of a role."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, NoReturn, Protocol, TypeVar

import click
from click.core import ParameterSource

from patterns.wire.errors import BadAddress, BadName, ZbrokerError
from zbroker.cli.exits import (
    BAD_CONFIGURATION,
    BROKEN_PIPE,
    HUNG_UP,
    INTERRUPTED,
    TERMINATED,
    end,
    end_as_json,
    status_of,
)
from zbroker.cli.words import said_as_json

_HURRY_S: Final = 0.3  # for the goodbye after Ctrl-C: leases go back at once, and a dead broker holds nobody up
COUNT_MAX: Final = 10**12  # a message a microsecond for eleven days; far below what islice() takes
BROKERS: Final = ("zb://", "zb+ipc://")
PEERS: Final = ("tcp://", "ipc://")  # not inproc: nobody else is in the process of a command
_F = TypeVar("_F", bound=Callable[..., Any])
_AS_JSON: Final = click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with stable keys.")
_RAW: Final = click.option("--raw", is_flag=True, help="Bodies are bytes, not JSON.")


class ClientCommand(click.Command):
    """A command whose errors are one line on standard error and an exit status, never a traceback."""

    def invoke(self, context: click.Context) -> Any:
        """Run it; the one place where errors become exit statuses."""
        from zbroker.cli.client_log import ClientLog  # not for --help

        before, log = {number: signal.signal(number, _terminated) for number in _ending_signals()}, ClientLog()
        try:
            with log, said_as_json(bool(context.params.get("as_json"))):
                return super().invoke(context)
        except _Terminated as ended:
            _end_quietly(HUNG_UP if ended.number == signal.SIGHUP else TERMINATED)
        except ZbrokerError as error:  # before OSError, which some of them are too
            if isinstance(error, BadAddress) and _is_of_environment(context):
                end(BAD_CONFIGURATION, f"ZBROKER_URL: {error}")
            if context.params.get("as_json"):
                end_as_json(status_of(error), error)
            code = f"{error.code}: " if error.code and error.code != error.detail else ""
            if log.has_said(f"{code}{error}"):
                sys.exit(status_of(error))
            end(status_of(error), f"{code}{error}")
        except KeyboardInterrupt:
            _end_quietly(INTERRUPTED)
        except BrokenPipeError:
            _end_quietly(BROKEN_PIPE)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Terminated(BaseException):
    """SIGTERM came, or the terminal went: as Ctrl-C, it ends a role in order, so that a group's messages go back at once and
    without an attempt, and a backup leaves no half of itself.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _ending_signals() -> list[signal.Signals]:
    """Under nohup, a terminal that goes ends nothing."""
    is_heeded = signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    return [signal.SIGTERM, signal.SIGHUP] if is_heeded else [signal.SIGTERM]


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated(number)


def _end_quietly(status: int) -> NoReturn:
    """Exit; what is left in the buffer of standard output is nobody's, and must not raise again at the very end."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a stream without a descriptor, or a closed one
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
    sys.exit(status)


class Closable(Protocol):
    def close(self, timeout_s: float = ...) -> None: ...


_Role = TypeVar("_Role", bound=Closable)


@contextlib.contextmanager
def closing(role: _Role) -> Iterator[_Role]:
    """Close a role after the block: with patience when all went well, in a hurry after Ctrl-C or a broken pipe."""
    try:
        yield role
    except BaseException:
        role.close(_HURRY_S)
        raise
    role.close()


def seconds(text: str) -> float:
    """A duration on the command line: a finite number, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise click.BadParameter(f"{text!r} is not a number of seconds, 0 or more")
    return value


def check_scheme(text: str, schemes: tuple[str, ...]) -> None:
    """Raises BadAddress: one of the addresses begins with none of them; only those that can be used here are named."""
    for one in text.split(","):
        if not one.strip().removeprefix("@").removeprefix(">").startswith(schemes):
            raise BadAddress(f"address {one!r}: it must begin with one of {', '.join(schemes)}")


def _check_url(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    """A broker's address, or one peer to peer."""
    return _checked(context, parameter, value, BROKERS + PEERS)


def _check_broker_url(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    """A broker's address: peer to peer there is nobody who could keep anything."""
    if value and value.lstrip("@>").startswith(PEERS):
        if _is_of_environment(context) and not context.resilient_parsing:
            end(BAD_CONFIGURATION, f"ZBROKER_URL: {context.info_name} needs a broker: zb://host, not {value!r}")
        raise click.UsageError(f"{context.info_name} needs a broker: --url zb://host, not {value!r}", context)
    return _checked(context, parameter, value, BROKERS)


def _checked(context: click.Context, parameter: click.Parameter, value: str | None, schemes: tuple[str, ...]) -> str:
    from patterns.wire.address import parse_addresses

    if not value:
        raise click.UsageError(
            "no address: say --url ADDRESS, or set ZBROKER_URL, for example --url zb://localhost", context
        )
    try:
        check_scheme(value, schemes)
        parse_addresses(value)
    except BadAddress as error:
        if _is_of_environment(context) and not context.resilient_parsing:  # the shell completes: it wants no words
            end(BAD_CONFIGURATION, f"ZBROKER_URL: {error}")
        raise click.BadParameter(str(error), context, parameter) from error
    return value


def _is_of_environment(context: click.Context) -> bool:
    """Whether the address is that of ZBROKER_URL, which is no wrong usage of this command."""
    return context.get_parameter_source("url") is ParameterSource.ENVIRONMENT


def is_brokered(url: str) -> bool:
    """Whether an address that was checked leads to a broker."""
    from patterns.wire.address import parse_addresses

    return parse_addresses(url)[0].brokered


def name_checked(check: Callable[[str], str]) -> Callable[[click.Context, click.Parameter, str], str]:
    """A callback for an argument that must be a name, a topic or a pattern."""

    def callback(context: click.Context, parameter: click.Parameter, value: str) -> str:
        try:
            return check(value)
        except BadName as error:
            raise click.BadParameter(str(error), context, parameter) from error

    return callback


def client_options(command: _F) -> _F:
    """--url, --json and --raw: of the commands that have bodies and do without a broker, too."""
    for option in reversed((
        click.option("--url", envvar="ZBROKER_URL", callback=_check_url, metavar="ADDRESS",
                     help="zb://host[:port] or zb+ipc://path of a broker; tcp:// or ipc:// peer to peer.  [$ZBROKER_URL]"),
        _AS_JSON,
        _RAW,
    )):  # fmt: skip
        command = option(command)
    return command


def stream_options(command: _F) -> _F:
    """--url, --json and --raw: of the commands that have bodies and need a broker."""
    return broker_options(_RAW(command))


def broker_options(command: _F) -> _F:
    """--url and --json: of the commands about a broker."""
    for option in reversed((
        click.option("--url", envvar="ZBROKER_URL", callback=_check_broker_url, metavar="ADDRESS",
                     help="zb://host[:port] or zb+ipc://path of a broker.  [$ZBROKER_URL]"),
        _AS_JSON,
    )):  # fmt: skip
        command = option(command)
    return command


def timeout_option(help: str, default: float | None = None) -> Callable[[_F], _F]:
    """--timeout S; the help tells the default."""
    help += f"  [{'no limit' if default is None else f'{default:g}'}]"
    return click.option("--timeout", "timeout_s", type=seconds, metavar="S", default=default, help=help)


def count_option(help: str) -> Callable[[_F], _F]:
    """--count N."""
    return click.option("--count", type=click.IntRange(1, COUNT_MAX), metavar="N", help=help)
