"""The Admin: asks a broker about itself."""

from __future__ import annotations

from typing import Any, NoReturn

from patterns.core.admin import AdminEngine, Answered
from patterns.io.clock import clock
from patterns.io.links import SocketKind
from patterns.io.waiting import Steps, Wait
from patterns.roles.role import D, MakeDriver, Role, deadline_of, jitter, new_nonce, refuse_security, resolve
from patterns.wire.codec import decode
from patterns.wire.errors import BadBody, NotInThisDeployment, TimedOut

_STREAM_VERBS = ("create_stream", "delete_stream", "purge_stream", "list_streams", "show_stream", "replay_stream")
_GROUP_VERBS = ("create_group", "delete_group", "reset_group", "pause_group", "resume_group", "list_groups", "show_group")  # fmt: skip
_DEAD_VERBS = ("list_dead", "show_dead", "redrive_dead")
_PLANNED = frozenset((*_STREAM_VERBS, *_GROUP_VERBS, *_DEAD_VERBS))


class AdminRole(Role[D]):
    """See patterns.sync.Admin."""

    def __init__(self, make: MakeDriver[D], address: str | None, *, timeout_s: float, security: object) -> None:
        refuse_security(security)
        addresses = resolve(address)
        if not addresses[0].brokered:
            raise NotInThisDeployment("an Admin needs a broker: use a zb:// address")
        deadline_of(timeout_s)  # refuses what is no time before there is anything to close
        self._timeout_s = timeout_s
        self._engine = AdminEngine(addresses, new_nonce(), jitter)
        self._answers: dict[int, Answered] = {}
        self._driver = make(self._engine, SocketKind.DEALER, self._take, in_background=self._wants_keeper)
        self._start()

    def _wants_keeper(self) -> bool:
        return not self._engine.is_ready and not self._engine.closed

    def _take(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Answered):
                self._answers[event.id] = event

    def _status(self) -> Steps[dict[str, Any]]:
        result = yield from self._ask("status", {})
        if not isinstance(result, dict):
            raise BadBody(f"status is a {type(result).__name__}, not a map")
        return result

    def _ask(self, verb: str, arguments: dict[str, object]) -> Steps[Any]:
        driver, engine, answers = self._driver, self._engine, self._answers
        driver.check()
        deadline = deadline_of(self._timeout_s)
        with driver.lock:
            number = engine.ask(verb, arguments, clock())
        try:
            yield Wait(lambda: number in answers or driver.is_closed or engine.error is not None, deadline)
        finally:
            driver.run(lambda now: engine.forget(number))
            answer = answers.pop(number, None)
        if answer is None:
            driver.check()
            if not engine.is_ready:
                raise engine.unavailable()
            raise TimedOut(f"{verb}: the broker has not answered within {self._timeout_s} s")
        if answer.error is not None:
            raise answer.error
        return decode(answer.codec, answer.payload, 1, None)[0]

    def __getattr__(self, name: str) -> NoReturn:
        if name in _PLANNED:
            raise NotInThisDeployment(f"Admin.{name}() is not built in this version; status() is")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
