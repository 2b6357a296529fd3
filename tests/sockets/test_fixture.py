"""The fixture `zbroker` as users have it: in projects of their own, in each mode."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from patterns.sync import Producer, Replier, Requester
from patterns.wire.errors import NotInThisDeployment, Unavailable
from tests.processes import is_gone, until
from zbroker.testing import BrokerProcess, MemoryBroker, Peers

PLUGIN = ("-p", "zbroker.testing.plugin", "-p", "no:cacheprovider", "-rs")
SERVICE = """
    import threading
    from patterns.sync import Producer, Replier, Requester

    def test_price(zbroker):
        with Replier(zbroker.address("price"), "price", lambda body: body * 2) as replier:
            thread = threading.Thread(target=replier.serve_forever)
            thread.start()
            with Requester(zbroker.address("price")) as requester:
                assert requester.request("price", 21, timeout_s=60, wait_s=60) == 42
            replier.close()
            thread.join()

    def test_stream(zbroker):
        with Producer(None, "orders", timeout_s=60) as producer:
            assert producer.send(1).offset == 0

    def test_time(zbroker):
        zbroker.advance(60)
"""


def test_a_test_runs_in_memory_unless_it_is_told_otherwise(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SERVICE)
    pytester.runpytest_inprocess(*PLUGIN).assert_outcomes(passed=3)
    done = pytester.runpytest_inprocess(*PLUGIN, "--zbroker", "peer")
    done.assert_outcomes(passed=1, skipped=2)
    done.stdout.fnmatch_lines_random(
        ["*mode peer: a Producer needs a broker*", "*mode peer: there is no broker here that could skip*"]
    )


def test_a_real_broker_does_the_same(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SERVICE)
    pytester.makeini("[pytest]\nzbroker = broker")
    done = pytester.runpytest_inprocess(*PLUGIN)
    done.assert_outcomes(passed=2, skipped=1)
    done.stdout.fnmatch_lines(["*mode broker: only a broker in memory can skip time*"])


def test_a_mark_says_modes_and_settings(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest
        from patterns.sync import Producer
        from patterns.wire.errors import NoSuchStream

        @pytest.mark.zbroker("memory", "broker", auto_create=False)
        def test_it(zbroker):
            with Producer(zbroker.url, "orders", timeout_s=60) as producer, pytest.raises(NoSuchStream):
                producer.send(1)
    """)
    pytester.runpytest_inprocess(*PLUGIN, "--strict-markers", "--zbroker", "peer").assert_outcomes(passed=2)


def test_fixtures_of_the_program_are_skipped_with_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest
        from patterns.sync import Producer

        @pytest.fixture
        def producer(zbroker):
            with Producer(zbroker.url, "orders") as producer:
                yield producer

        def test_it(producer):
            producer.send(1)
    """)
    pytester.runpytest_inprocess(*PLUGIN, "--zbroker", "memory,peer").assert_outcomes(passed=1, skipped=1)


def test_what_memory_cannot_do_is_a_failure(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        from patterns.sync import Requester

        def test_it(zbroker):
            Requester(zbroker.url, security="keys")
    """)
    pytester.runpytest_inprocess(*PLUGIN).assert_outcomes(failed=1)


@pytest.mark.parametrize("arguments", [("--zbroker", "memroy"), ("-o", "zbroker=memroy")])
def test_an_unknown_mode_is_named(pytester: pytest.Pytester, arguments: tuple[str, str]) -> None:
    done = pytester.runpytest_inprocess(*PLUGIN, *arguments)
    done.stderr.fnmatch_lines(["*there is no mode 'memroy'; it is one of memory, peer, broker, or all"])
    assert done.ret == pytest.ExitCode.USAGE_ERROR


def test_several_runs_at_once_do_not_meet(pytester: pytest.Pytester) -> None:
    """As pytest-xdist has them: processes, each with brokers and folders of its own."""
    pytester.makepyfile(SERVICE)
    command = [sys.executable, "-m", "pytest", "-q", *PLUGIN, "--zbroker"]
    runs = [
        subprocess.Popen([*command, mode], stdout=subprocess.PIPE, text=True) for mode in ("memory", "peer", "broker")
    ]
    said = [run.communicate(timeout=100)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], said


def test_importing_the_plugin_imports_nothing_of_ours() -> None:
    """It is loaded in every project on a machine that has zbroker."""
    program = "import sys, zbroker.testing.plugin; print(sorted(name for name in sys.modules if name.startswith(('patterns', 'zmq'))))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


# -- what the fixture gives ----------------------------------------------------------------------------------------


def test_a_broker_process_keeps_its_url_and_its_journal_over_a_restart() -> None:
    with BrokerProcess() as broker, Producer(broker.url, "orders", timeout_s=60) as producer:
        url = broker.url
        assert producer.send(1).offset == 0
        broker.restart()
        assert broker.url == url
        assert producer.send(2).offset == 1


def test_a_broker_process_leaves_neither_process_nor_folder() -> None:
    with BrokerProcess() as broker:
        child, folder = broker._broker._child, broker._folder
        assert child is not None
    assert not folder.exists()
    until(lambda: is_gone(child._process.pid))


def test_a_broker_process_takes_settings_and_no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZBROKER_STREAM_BYTES", "much")
    with BrokerProcess(stream_bytes="1M", drain_s=1, auto_create=True):
        pass
    with pytest.raises(Unavailable, match=r"stream_bites='1M' does not start: .*stream_bytes"):
        BrokerProcess(stream_bites="1M")


def test_peers_have_an_address_for_each_name() -> None:
    with Peers() as peers:
        assert peers.address("price") == peers.address("price") != peers.address("stock")
        with Replier(peers.address("price"), "price", lambda body: body):
            pass
        folder = Path(peers._folder)
        for call in (peers.restart, peers.kill, lambda: peers.advance(1), peers.cut):
            with pytest.raises(NotInThisDeployment):
                call()
    assert not folder.exists()


@pytest.mark.parametrize("make", [MemoryBroker, Peers])
def test_modes_say_what_they_are(make: type[MemoryBroker] | type[Peers]) -> None:
    with make() as made:
        assert made.mode in ("memory", "peer")
        assert made.address() == made.url
        made.mend()
        made.check()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to count descriptors")
def test_the_fixture_leaves_no_descriptors(zbroker: MemoryBroker) -> None:
    def use() -> None:
        with BrokerProcess() as broker, Requester(broker.url):
            pass
        with Peers() as peers, Requester(peers.url):
            pass

    use()
    before = len(os.listdir("/proc/self/fd"))
    use()
    until(lambda: len(os.listdir("/proc/self/fd")) <= before, what="the end of its sockets")
