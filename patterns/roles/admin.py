"""The Admin: asks a broker about itself, and tells it what its streams and groups are to be."""

from __future__ import annotations

from typing import Any

from patterns.core.admin import AdminEngine, Answered
from patterns.core.verbs import Verb, count_of, rows_of
from patterns.io.clock import clock
from patterns.io.links import SocketKind
from patterns.io.waiting import Steps, Wait
from patterns.roles.role import D, MakeDriver, Role, deadline_of, jitter, new_nonce, refuse_security, resolve
from patterns.wire.codec import decode
from patterns.wire.errors import BadBody, NotInThisDeployment, TimedOut


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

    def _ask(self, verb: Verb) -> Steps[dict[str, Any]]:
        """The result of a verb, which is a map."""
        result = yield from self._answer(verb)
        if not isinstance(result, dict):
            raise BadBody(f"the result of {verb.name} is a {type(result).__name__}, not a map")
        return result

    def _rows(self, verb: Verb, key: str) -> Steps[list[dict[str, Any]]]:
        """The rows that a verb answers with."""
        return rows_of(verb, (yield from self._ask(verb)), key)

    def _all(self, verb: Verb, key: str) -> Steps[list[dict[str, Any]]]:
        """All rows of a list, which comes in parts when it is long."""
        found: list[dict[str, Any]] = []
        while True:
            page = yield from self._ask(Verb(verb.name, {**verb.arguments, "skip": len(found)}))
            new = rows_of(verb, page, key)
            found += new
            if not new or len(found) >= count_of(verb, page):
                return found

    def _answer(self, verb: Verb) -> Steps[Any]:
        driver, engine, answers = self._driver, self._engine, self._answers
        driver.check()
        deadline = deadline_of(self._timeout_s)
        with driver.lock:
            number = engine.ask(verb.name, verb.arguments, clock())
        try:
            yield Wait(lambda: number in answers or driver.is_closed or engine.error is not None, deadline)
        finally:
            driver.run(lambda now: engine.forget(number))
            answer = answers.pop(number, None)
        if answer is None:
            driver.check()
            if not engine.is_ready:
                raise engine.unavailable()
            raise TimedOut(f"{verb.name}: the broker has not answered within {self._timeout_s} s")
        if answer.error is not None:
            raise answer.error
        return decode(answer.codec, answer.payload, 1, None)[0]
