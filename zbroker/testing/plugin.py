"""pytest's plugin: the fixture `zbroker`, which gives a test somewhere for its roles to connect, and takes it away again.

It is known to pytest wherever zbroker is installed; what it needs is imported when a test first asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pytest

_MODES: Final = ("memory", "peer", "broker")
_HELP: Final = (
    "where tests with the fixture `zbroker` run: memory (the default), peer, broker; several with commas, or all"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("zbroker").addoption("--zbroker", metavar="MODES", default=None, help=_HELP)
    parser.addini("zbroker", _HELP, default="memory")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "zbroker(*modes, **settings): the modes in which this test runs, whatever --zbroker says, and settings of its broker",
    )
    _modes_of(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "zbroker" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("zbroker")
        modes = _checked(marker.args, f"@pytest.mark.zbroker of {metafunc.definition.name}") if marker else ()
        metafunc.parametrize("zbroker", modes or _modes_of(metafunc.config), indirect=True)


def _modes_of(config: pytest.Config) -> Sequence[str]:
    said = config.getoption("--zbroker")
    modes = str(config.getini("zbroker") if said is None else said)
    if modes.strip() == "all":
        return _MODES
    where = "the setting `zbroker`" if said is None else "--zbroker"
    return _checked(modes.replace(",", " ").split(), where) or ("memory",)


def _checked(modes: Sequence[Any], where: str) -> Sequence[str]:
    for mode in modes:
        if mode not in _MODES:
            raise pytest.UsageError(f"{where}: there is no mode {mode!r}; it is one of {', '.join(_MODES)}, or all")
    return modes


@pytest.fixture
def zbroker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Where roles connect: a MemoryBroker, a BrokerProcess or Peers, by the mode; ZBROKER_URL names it, too.

    `url` is for any role, `address(name)` for roles that meet peer to peer as well. A test that needs what its mode has not (a stream
    without a broker, skipped time in a process) is skipped, and says so.
    """
    from zbroker import testing

    mode = getattr(request, "param", "memory")
    marker = request.node.get_closest_marker("zbroker")
    settings: dict[str, Any] = marker.kwargs if marker else {}
    makers: dict[str, Callable[..., Any]] = {
        "memory": testing.MemoryBroker,
        "broker": testing.BrokerProcess,
        "peer": lambda **_: testing.Peers(),
    }
    with makers[mode](**settings) as made:
        monkeypatch.setenv("ZBROKER_URL", made.url)
        yield made
        made.check()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Fixtures of the program's own make roles, too."""
    with _skipping(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with _skipping(item):
        return (yield)


@contextmanager
def _skipping(item: pytest.Item) -> Iterator[None]:
    """What a mode cannot do is no failure of a test; of one in memory it is."""
    mode = (
        item.callspec.params.get("zbroker", "memory")
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else "memory"
    )
    if mode == "memory":
        yield
        return
    from patterns.wire.errors import NotInThisDeployment

    try:
        yield
    except NotInThisDeployment as error:
        pytest.skip(f"mode {mode}: {error}")
