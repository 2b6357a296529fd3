"""Checks of what callers hand over, at the call: what is wrong must not fail later, in another thread, or in the other end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Any, Final

from patterns.wire.configs import CONFIRM_LEVELS
from patterns.wire.errors import BadArgument
from patterns.wire.limits import DELAY_MS_MAX
from patterns.wire.names import check_topic
from patterns.wire.words import counted

_SECONDS_MAX: Final = 1e9  # thirty years; int() of what is multiplied stays small
_PROCESSING_S_MIN: Final = 0.1  # a busy machine alone may stop a quick handler for half of it
_TEXT_BYTES_MAX: Final = 1_000  # of a code, or a reason; they travel in a header, which has an end


def check_count(name: str, value: int, most: int, what: str, *, least: int = 1) -> int:
    """A whole number. Raises BadArgument."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadArgument(f"{name}={value!r}: {least} to {most:,} {what}")
    return value


def check_seconds(name: str, value: float) -> float:
    """A time of 0 or more. Raises BadArgument."""
    if not _is_number(value) or not 0 <= value <= _SECONDS_MAX:
        raise BadArgument(f"{name}={value!r}: a number of seconds, 0 to {int(_SECONDS_MAX):,}")
    return value


def delay_ms_of(delay_s: float) -> int:
    """How long a message is to wait, in milliseconds. Raises BadArgument."""
    if not _is_number(delay_s) or not 0 <= delay_s <= DELAY_MS_MAX / 1_000:
        raise BadArgument(
            f"delay_s={delay_s!r}: a number of seconds, 0 to {DELAY_MS_MAX // 1_000:,}, which are 365 days"
        )
    return int(delay_s * 1_000)


def topic_of(topic: str | None) -> str | None:
    """The topic of a message, if it has one. Raises BadName, BadArgument."""
    if topic is not None and not isinstance(topic, str):
        raise BadArgument(f"topic={topic!r}: a str, or None")
    return topic if topic is None else check_topic(topic)


def check_confirm(confirm: str, *, has_journal: bool) -> None:
    """Raises BadArgument."""
    if has_journal and confirm != "durable":
        raise BadArgument(f"confirm={confirm!r} with a journal, which lets go of what the broker has on its disk")
    if confirm not in CONFIRM_LEVELS:
        raise BadArgument(f"confirm={confirm!r}: one of {', '.join(map(repr, CONFIRM_LEVELS))}")


def check_processing(processing_max_s: float) -> None:
    """How long a handler may compute. Raises BadArgument."""
    if not _is_number(processing_max_s) or not _PROCESSING_S_MIN <= processing_max_s <= _SECONDS_MAX:
        raise BadArgument(
            f"processing_max_s={processing_max_s!r}: a number of seconds, {_PROCESSING_S_MIN} to {int(_SECONDS_MAX):,}; "
            "in less, a handler that computes cannot be told from one that is stuck"
        )


def check_limits(**timeouts_s: float | None) -> None:
    """Times that may be None, for no limit. Raises BadArgument."""
    for name, value in timeouts_s.items():
        if value is not None and (not _is_number(value) or not value >= 0):
            raise BadArgument(f"{name}={value!r}: a number of seconds, 0 or more, or None for no limit")


def check_timeout(timeout_s: float | None) -> None:
    """What receive() may wait: it must not depend on whether a message is there already. Raises BadArgument."""
    if timeout_s is not None and not (type(timeout_s) is float and timeout_s >= 0):
        check_limits(timeout_s=timeout_s)


def check_wait(timeout_s: float, wait_s: float) -> None:
    """The times of a request. Raises BadArgument."""
    if type(timeout_s) is type(wait_s) is float and timeout_s > 0 and wait_s >= 0:
        return
    if not _is_number(timeout_s) or not timeout_s > 0:
        raise no_time("timeout_s", timeout_s)
    if not _is_number(wait_s) or not wait_s >= 0:
        raise BadArgument(f"wait_s={wait_s!r}: a number of seconds, 0 or more")


def no_time(name: str, value: object) -> BadArgument:
    """What to raise for a time that is no number above 0."""
    return BadArgument(f"{name}={value!r}: a number of seconds above 0")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_text(name: str, value: str) -> str:
    """A short text that travels in a header. Raises BadArgument."""
    if not isinstance(value, str):
        raise BadArgument(f"{name}={value!r}: a str")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise BadArgument(f"{name}={value[:100]!a}: no valid Unicode; {error.reason}") from error
    if size > _TEXT_BYTES_MAX:
        raise BadArgument(f"{name} of {size} bytes, at most {_TEXT_BYTES_MAX}")
    return value


def check_callable(name: str, value: Callable[..., Any]) -> None:
    """Raises BadArgument."""
    if not callable(value):
        raise BadArgument(f"{name}={value!r}: a function")


def check_executor(executor: Executor | None) -> None:
    """Raises BadArgument."""
    if executor is not None and not isinstance(executor, Executor):
        raise BadArgument(f"executor={executor!r}: an Executor of concurrent.futures, or None")


def services_of(service: str | Iterable[str]) -> list[str]:
    """The names that a Replier is given, not checked yet. Raises BadArgument for what are none."""
    if isinstance(service, str):
        return [service]
    hint = ""
    if callable(service):
        hint = "; the name stands before the handler: Replier(address, 'price', handler)"
    try:
        names = list(service)
    except TypeError as error:
        raise BadArgument(f"service={service!r}: a name, or several{hint}") from error
    if not names:
        raise BadArgument("a Replier needs at least one service")
    return names


def check_upto(upto: int, count: int) -> None:
    """How many of a batch of `count` messages. Raises BadArgument."""
    if isinstance(upto, bool) or not isinstance(upto, int) or not 0 <= upto <= count:
        raise BadArgument(f"upto={upto!r}: this batch has {counted(count, 'message')}")


def indexes_of(indexes: Iterable[int], count: int) -> list[int]:
    """Places in a batch of `count` messages. Raises BadArgument."""
    try:
        places = list(indexes)
    except TypeError as error:
        raise BadArgument(f"indexes={indexes!r}: several of them, as in [0, 2]") from error
    for place in places:
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < count:
            raise BadArgument(f"index {place!r}: this batch has {counted(count, 'message')}, from 0")
    return places
