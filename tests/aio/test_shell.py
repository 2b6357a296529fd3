"""patterns.aio is patterns.sync with await: the same names, the same parameters."""

from __future__ import annotations

import asyncio
import inspect
import selectors
import threading

import pytest

import patterns.aio
import patterns.sync
from patterns.aio import Consumer, Producer, Publisher, Replier, Requester, Subscriber
from patterns.aio.role import AioRole
from patterns.wire.errors import Closed, LocalProtocolError
from tests.aio.loops import in_a_loop
from tests.processes import until

# What one shell has and the other has not, with the reason.
ONLY_AIO = {
    "Replier(concurrency)": "handlers that are coroutines can overlap; threads of one Replier cannot",
    "Replier(executor)": "in a loop a handler that blocks needs another thread",
    "Producer.room": "post() raises BufferFull at once, where the sync one waits",
}
SPELLED = {
    "__iter__": "__aiter__",
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
}
WAITS = {
    "Admin": {
        *("status", "close"),
        *(f"{verb}_stream" for verb in ("create", "show", "purge", "delete")),
        *(f"{verb}_group" for verb in ("create", "show", "reset", "pause", "resume", "delete")),
        *("list_streams", "list_groups", "list_dead", "show_dead", "redrive_dead"),
    },
    "Consumer": {"ready", "receive", "close"},
    "IncomingRequest": {"send_part"},
    "Posted": {"result"},
    "Producer": {"send", "send_many", "flush", "close", "room"},
    "Publisher": {"publish", "flush", "wait_for_subscribers", "close"},
    "Replier": {"ready", "receive", "serve_forever", "close"},
    "Requester": {"request", "close"},
    "StreamedReply": set(),
    "Subscriber": {"ready", "receive", "close"},
}


def _public(kind: type) -> dict[str, object]:
    named = {*SPELLED, *SPELLED.values()}
    return {
        SPELLED.get(name, name): member
        for name, member in inspect.getmembers(kind)
        if (not name.startswith("_") or name in named) and not name.startswith("__msgspec")
    }


def _parameters(call: object) -> list[tuple[str, object, object]]:
    return [(one.name, one.kind, one.default) for one in inspect.signature(call).parameters.values()]  # type: ignore[arg-type]


def test_the_same_names() -> None:
    assert patterns.aio.__all__ == patterns.sync.__all__
    assert patterns.aio.__doc__ != patterns.sync.__doc__


@pytest.mark.parametrize("name", patterns.sync.__all__)
def test_the_same_methods_with_the_same_parameters(name: str) -> None:
    sync, aio = _public(getattr(patterns.sync, name)), _public(getattr(patterns.aio, name))
    assert {member for member in aio if f"{name}.{member}" not in ONLY_AIO} == set(sync)
    for member, found in sync.items():
        if inspect.isfunction(found):
            assert _parameters(aio[member]) == _parameters(found), member


@pytest.mark.parametrize("name", patterns.sync.__all__)
def test_the_same_constructor(name: str) -> None:
    sync, aio = getattr(patterns.sync, name), getattr(patterns.aio, name)
    if name in WAITS and name != "Posted":
        found = [one for one in _parameters(aio.__init__) if f"{name}({one[0]})" not in ONLY_AIO]
        assert found == _parameters(sync.__init__)


@pytest.mark.parametrize("name", WAITS)
def test_what_waits_is_a_coroutine_and_nothing_else_is(name: str) -> None:
    members = _public(getattr(patterns.aio, name))
    found = {member for member, one in members.items() if inspect.iscoroutinefunction(one)}
    assert found - {"__aenter__", "__aexit__"} == WAITS[name]


@pytest.mark.parametrize("name", [name for name in patterns.sync.__all__ if name in WAITS])
def test_every_public_method_says_what_it_promises(name: str) -> None:
    for member, found in _public(getattr(patterns.aio, name)).items():
        assert member.startswith("__a") or inspect.getdoc(found), member


def test_no_exception_to_the_rule_is_stale() -> None:
    for what in ONLY_AIO:
        name, _, parameter = what.rstrip(")").partition("(")
        if parameter:
            assert parameter in inspect.signature(getattr(patterns.aio, name)).parameters
            assert parameter not in inspect.signature(getattr(patterns.sync, name)).parameters
        else:
            role, _, method = name.partition(".")
            assert hasattr(getattr(patterns.aio, role), method)
            assert not hasattr(getattr(patterns.sync, role), method)


def test_a_role_needs_a_running_loop() -> None:
    with pytest.raises(RuntimeError, match="running event loop"):
        Requester("tcp://127.0.0.1:9")


def test_a_loop_that_cannot_watch_descriptors_is_refused() -> None:
    class Blind(asyncio.SelectorEventLoop):
        add_reader = asyncio.AbstractEventLoop.add_reader

        def __init__(self) -> None:
            super().__init__(selectors.DefaultSelector())

        def _add_reader(self, *arguments: object) -> object:  # its own bell
            return super()._add_reader(*arguments)  # type: ignore[misc]

    async def make() -> None:
        with pytest.raises(RuntimeError, match=r"add_reader"):
            Requester("tcp://127.0.0.1:9")

    with asyncio.Runner(loop_factory=Blind) as runner:
        runner.run(make())


@in_a_loop
async def test_a_closed_role_says_so_and_closes_again() -> None:
    asker = Requester("tcp://127.0.0.1:9")
    await asker.close(0.1)
    await asker.close()
    with pytest.raises(Closed):
        await asker.request("echo", 1)


def test_a_role_in_a_second_loop_says_that_its_own_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    async def make() -> list[AioRole]:
        return [
            Requester("tcp://127.0.0.1:9"),
            Publisher("zb://127.0.0.1:9"),
            Subscriber("zb://127.0.0.1:9", ">"),
            Producer("zb://127.0.0.1:9", "s"),
            Consumer("zb://127.0.0.1:9", "s", group="g"),
        ]

    requester, publisher, subscriber, producer, consumer = made = asyncio.run(make())

    async def use() -> None:
        for call in (
            lambda: requester.request("echo", 1, timeout_s=0.5),
            lambda: publisher.publish("a.b", 1),
            lambda: publisher.flush(0.5),
            lambda: subscriber.receive(0.5),
            lambda: producer.send(1),
            lambda: consumer.receive(0.5),
            consumer.__aenter__,
        ):
            for _ in range(2):
                with pytest.raises(LocalProtocolError, match="event loop that it was made in, and that one has ended"):
                    await call()
        with pytest.raises(LocalProtocolError, match="this Producer belongs to"):
            producer.post(1)
        for role in made:
            await role.close()
            assert role.closed

    asyncio.run(use())
    assert sum("after its event loop had ended" in record.getMessage() for record in caplog.records) == len(made)


def test_a_role_in_a_loop_beside_its_own_says_so() -> None:
    async def beside(role: AioRole) -> None:
        with pytest.raises(LocalProtocolError, match="here runs another one"):
            async with role:
                pass
        with pytest.raises(LocalProtocolError, match="here runs another one"):
            await role.close()

    async def own() -> None:
        async with Requester("tcp://127.0.0.1:9") as role:
            await asyncio.get_running_loop().run_in_executor(None, asyncio.run, beside(role))

    asyncio.run(own())


def test_a_role_that_was_left_open_holds_up_nobody() -> None:
    made = []

    async def leave() -> None:
        made.append(Requester("tcp://127.0.0.1:9"))

    asyncio.run(leave())
    made[0]._driver.at_exit(0)
    assert made[0].closed


def test_what_was_left_open_in_a_loop_that_has_ended_is_closed_when_the_next_role_is_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    waiting: list[asyncio.Task[object]] = []

    async def leave() -> tuple[Replier, Requester]:
        replier = Replier("tcp://127.0.0.1:0", "s", lambda body: body)
        requester = Requester(replier.address)
        waiting.append(asyncio.create_task(requester.request("s", 1)))
        await asyncio.sleep(0)
        return replier, requester

    loop = asyncio.new_event_loop()
    roles = loop.run_until_complete(leave())
    loop.close()  # with a task that waits, as a program ends that does not use asyncio.run()
    guards = [thread for thread in threading.enumerate() if thread.name == "zbroker-guard"]

    async def another() -> None:
        async with Requester("tcp://127.0.0.1:9"):
            assert all(role.closed for role in roles)

    asyncio.run(another())
    assert "a Replier was left open when its event loop ended" in caplog.text
    until(lambda: not any(thread.is_alive() for thread in guards), 30, "the end of the guard's thread")
    waiting.clear()
