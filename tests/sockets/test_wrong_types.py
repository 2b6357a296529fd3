"""Whatever is handed to a public class is taken, or refused at once with an error of ours: nothing else, and nothing later."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

import patterns.aio
import patterns.sync
from patterns.wire.errors import ZbrokerError
from tests.processes import Broker


def function(*_: object) -> None: ...


THING: Final = object()
NAN: Final = float("nan")
VALUES: Final = (None, 5, "x", b"x", THING, NAN, -1, function, [1], "\ud800")
FINE: Final[dict[str, tuple[object, ...]]] = {  # which of these a parameter takes
    "address": (),
    "service": ("x",),
    "stream": ("x",),
    "patterns": ("x",),
    "group": (None, "x"),
    "start": (5,),
    "credit": (5,),
    "handler": (None, function),
    "codec": (),
    "type": (None,),
    "name": ("x",),
    "overflow": (),
    "security": (None,),
    "concurrency": (5,),
    "executor": (None,),
    "unconfirmed_bytes_max": (5,),
    "processing_max_s": (None, 5),
    "confirm": (),
    "idle_timeout_s": (None, 5),
    "timeout_s": (None, 5),
    "part_timeout_s": (5,),
    "wait_s": (5,),
    "headers": (None,),
    "key": (None, "x"),
    "message_id": (None, "x"),
    "topic": ("x",),
    "bodies": ([1],),
    "count": (5,),
    "call": (function,),
    "code": ("x",),
    "detail": ("x", "\ud800"),  # an exception's own words: escaped where they travel
    "reason": ("x",),
    "delay_s": (5,),
    "seconds": (5,),
    "upto": (None,),
    "indexes": (None, [1]),
    "journal": (None,),
    "body": (None, 5, "x", b"x", NAN, -1, [1]),
}
NEVER_NONE: Final = {"request", "close"}  # which always have a limit
NOBODY: Final = "zb://127.0.0.1:1"  # a port that nobody listens at
ROLES: Final = {
    "Requester": (),
    "Replier": ("svc",),
    "Publisher": (),
    "Subscriber": ("a.>",),
    "Producer": ("st",),
    "Consumer": ("st",),
    "Admin": (),
}


def wrong(parameter: str, *, takes_none: bool = True) -> Iterator[object]:
    fine = FINE[parameter]
    for value in VALUES:
        is_fine = any(value is one or (type(value) is type(one) and value == one) for one in fine)
        if not is_fine or (value is None and not takes_none):
            yield value


async def refused(call: Callable[[], Any], what: str) -> None:
    """It is an error of ours, with a text that a person can read."""
    try:
        found = call()
        if inspect.isawaitable(found):
            await found
        told = "it is taken"
    except ZbrokerError as error:
        told = "" if 0 < len(str(error)) < 1_000 else f"a text of {len(str(error))} characters"
    except BaseException as error:  # noqa: BLE001  said with what was called
        told = f"{type(error).__name__}: {error}"
    assert not told, f"{what}: {told}"


async def result(found: Any) -> Any:
    return await found if inspect.isawaitable(found) else found


@asynccontextmanager
async def role(shell: ModuleType, name: str, *arguments: object, **more: object) -> AsyncIterator[Any]:
    made = getattr(shell, name)(*arguments, **more)
    try:
        yield made
    finally:
        await result(made.close())


@pytest.mark.parametrize("shell", [patterns.sync, patterns.aio])
@pytest.mark.parametrize("name", ROLES)
def test_a_constructor_refuses_what_it_cannot_use(
    shell: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZBROKER_URL", raising=False)
    kind = getattr(shell, name)

    async def body() -> None:
        for parameter in list(inspect.signature(kind.__init__).parameters)[1:]:
            for value in wrong(parameter):
                arguments: list[Any] = [NOBODY, *ROLES[name]]
                more = {}
                if parameter == "address":
                    arguments[0] = value
                elif parameter in ("service", "stream", "patterns"):
                    arguments[1] = value
                else:
                    more[parameter] = value
                await refused(partial(kind, *arguments, **more), f"{name}({parameter}={value!a})")

    asyncio.run(body())


async def _calls(shell: ModuleType, url: str, stack: AsyncExitStack) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Every public method that takes something, and what it would take."""
    make = stack.enter_async_context
    requester = await make(role(shell, "Requester", url))
    replier = await make(role(shell, "Replier", url, "svc"))
    publisher = await make(role(shell, "Publisher", url))
    subscriber = await make(role(shell, "Subscriber", url, ">"))
    producer = await make(role(shell, "Producer", url, "st"))
    consumer = await make(role(shell, "Consumer", url, "st", group="g"))
    await result(replier.ready(30))
    await result(producer.send_many([1, 2, 3]))
    stream = requester.stream("svc", 1, part_timeout_s=60)
    stack.callback(stream.close)
    request = await result(replier.receive(30))
    delivery = await result(consumer.receive(30))
    batches = await make(role(shell, "Consumer", url, "st", group="other"))
    batch = await anext(batches.batches()) if shell is patterns.aio else next(batches.batches())
    posted = producer.post(1)
    asked: dict[str, Any] = {"timeout_s": 5, "wait_s": 5, "headers": None, "type": int}
    stored: dict[str, Any] = {"body": 1, "key": None, "headers": None, "message_id": None}
    return {
        "request": (requester.request, {"service": "svc", "body": 1, **asked}),
        "stream": (requester.stream, {"service": "svc", "body": 1, "part_timeout_s": 5, **asked}),
        "Replier.ready": (replier.ready, {"timeout_s": 5}),
        "Replier.receive": (replier.receive, {"timeout_s": 5}),
        "send_part": (request.send_part, {"body": 1, "headers": None}),
        "reply": (request.reply, {"body": 1, "headers": None}),
        "fail": (request.fail, {"code": "x", "detail": "x"}),
        "publish": (publisher.publish, {"topic": "a", "headers": None}),
        "Publisher.flush": (publisher.flush, {"timeout_s": 5}),
        "wait_for_subscribers": (publisher.wait_for_subscribers, {"count": 1, "timeout_s": 5}),
        "Subscriber.ready": (subscriber.ready, {"timeout_s": 5}),
        "Subscriber.receive": (subscriber.receive, {"timeout_s": 5}),
        "send": (producer.send, stored),
        "post": (producer.post, {name: value for name, value in stored.items() if name != "body"}),
        "send_many": (producer.send_many, {"bodies": []}),
        "Producer.flush": (producer.flush, {"timeout_s": 5}),
        "result": (posted.result, {"timeout_s": 5}),
        "add_done_callback": (posted.add_done_callback, {"call": function}),
        "Consumer.ready": (consumer.ready, {"timeout_s": 5}),
        "Consumer.receive": (consumer.receive, {"timeout_s": 5}),
        "Delivery.nack": (delivery.nack, {"delay_s": 5}),
        "reject": (delivery.reject, {"reason": "x"}),
        "extend": (delivery.extend, {"seconds": 5}),
        "Batch.ack": (batch.ack, {"upto": None}),
        "Batch.nack": (batch.nack, {"indexes": None, "delay_s": 5}),
        "close": (requester.close, {"timeout_s": 5}),
    }


@pytest.mark.parametrize("shell", [patterns.sync, patterns.aio])
def test_a_method_refuses_what_it_cannot_use(broker: Broker, shell: ModuleType) -> None:
    async def body() -> None:
        async with AsyncExitStack() as stack:
            for name, (method, fine) in (await _calls(shell, broker.url, stack)).items():
                more = {"body": 1} if name in ("publish", "post") else {}
                for parameter in fine:
                    for value in wrong(parameter, takes_none=name not in NEVER_NONE or parameter != "timeout_s"):
                        call = partial(method, **{**fine, **more, parameter: value})
                        await refused(call, f"{name}({parameter}={value!a})")

    asyncio.run(body())


def test_a_forgotten_service_is_named(tmp_path: Path) -> None:
    with pytest.raises(ZbrokerError, match=r"the name stands before the handler: Replier\(address, 'price', handler\)"):
        patterns.sync.Replier(f"ipc://{tmp_path}/s", function)  # type: ignore[arg-type]


def test_what_an_exception_says_travels_though_it_is_no_unicode(broker: Broker) -> None:
    def fails(_: object) -> None:
        raise OSError("no such file: \udcff")

    with patterns.sync.Replier(broker.url, "svc", fails) as replier, patterns.sync.Requester(broker.url) as requester:
        replier.ready(30)
        stream = requester.stream("svc", 1, part_timeout_s=60)
        request = replier.receive(30)
        assert request is not None
        replier._serve(request, fails)
        with pytest.raises(ZbrokerError, match=r"no such file: \\udcff"):
            next(stream)
