"""The client commands as real processes: peer to peer, and through a broker."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from patterns.sync import Admin, Consumer, Producer, Publisher, Replier, Requester, Subscriber
from patterns.wire.errors import BadArgument, NotInThisDeployment, Unavailable
from tests.processes import until

ZBROKER = [sys.executable, "-m", "zbroker"]
PIPE = subprocess.PIPE


def run(*arguments: str, stdin: bytes = b"", url: str = "") -> subprocess.CompletedProcess[bytes]:
    place = ["--url", url] if url else []
    return subprocess.run([*ZBROKER, *arguments, *place], input=stdin, capture_output=True, timeout=60, check=False)


def start(*arguments: str, **streams: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*ZBROKER, *arguments], stdout=PIPE, stderr=PIPE, **streams)


def lines(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture(params=["ipc", "tcp"])
def bound(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/s" if request.param == "ipc" else "tcp://127.0.0.1:*"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("data")
    process = start("run", "--bind", "tcp://127.0.0.1:0", "--json", "--data", str(folder))
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        yield ready["addresses"]["native"].replace("tcp://", "zb://")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def dead() -> str:
    """An address at which nobody listens: a port that was free a moment ago."""
    with Replier("tcp://127.0.0.1:*", "x") as replier:
        return replier.address.replace("tcp://", "zb://")


@pytest.fixture
def service(bound: str) -> Iterator[Any]:
    """Starts `reply` peer to peer; gives its address once it is offered."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str) -> str:
        process = start("reply", "price", "--url", bound, *arguments)
        started.append(process)
        assert process.stderr is not None
        return process.stderr.readline().decode().split()[-1]

    yield begin
    for process in started:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        process.communicate()


# -- peer to peer ------------------------------------------------------------------------------------------------


def test_sub_prints_what_a_publisher_sends(bound: str) -> None:
    with Publisher(bound) as publisher:
        reader = start("sub", "orders.>", "--url", publisher.address, "--count", "3", "--json")
        publisher.wait_for_subscribers(1, 20)
        publisher.publish("orders.eu", {"sku": 7})
        publisher.publish("other", 1)
        publisher.publish("orders.us", b"\xff")
        publisher.publish("orders.us", [float("nan")])
        publisher.flush()
        output, complaint = reader.communicate(timeout=20)
    assert (reader.returncode, complaint) == (0, b"")
    first, second, third = lines(output)
    assert first == {"topic": "orders.eu", "sequence": 0, "body": {"sku": 7}}
    assert set(second) == {"topic", "sequence", "body_base64"}
    assert base64.b64decode(second["body_base64"]) == b"\xff"
    assert set(third) == {"topic", "sequence", "body_base64"}


def test_pub_waits_for_its_subscribers_and_reads_lines(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/s"
    with Subscriber(url, "a.b") as subscriber:
        done = run("pub", "a.b", "-", "--wait-for-subscribers", "1", "--json", stdin=b'1\n"two"\n', url=url)
        assert [subscriber.receive(20).body for _ in range(2)] == [1, "two"]
    assert done.returncode == 0
    assert lines(done.stdout) == [{"published": 2, "subscribers": 1}]


def test_pub_without_subscribers_times_out_only_if_they_were_asked_for(bound: str) -> None:
    asked = run("pub", "a", "1", "--wait-for-subscribers", "1", "--timeout", "0.1", url=bound)
    unasked = run("pub", "a", "1", "--timeout", "0.1", url=bound)
    assert (asked.returncode, unasked.returncode) == (75, 0)
    assert b"no subscriber" in unasked.stderr


def test_request_and_echo(service: Any) -> None:
    url = service("--echo")
    assert run("request", "price", '{"sku": 7}', url=url).stdout == b'{"sku":7}\n'
    assert lines(run("request", "price", "é", "--raw", "--json", url=url).stdout) == [{"body_base64": "w6k="}]


def test_lines_are_asked_in_order_and_a_bad_one_is_counted(service: Any) -> None:
    done = run("request", "price", "-", stdin=b"1\n2\noops\n4\n", url=service("--echo"))
    assert (done.returncode, done.stdout) == (1, b"1\n2\n")
    assert b"line 3" in done.stderr
    assert b"2 requests were answered" in done.stderr


def test_a_command_answers_with_what_it_prints(service: Any) -> None:
    url = service("--command", "read -r body; echo $body; test $body != 3 || { echo out of it >&2; exit 4; }")
    assert run("request", "price", "12", "--json", url=url).stdout == b'{"body":12}\n'
    assert run("request", "price", "true", url=url).stdout == b"true\n"
    failed = run("request", "price", "3", url=url)
    assert (failed.returncode, failed.stdout) == (1, b"")
    assert b"exit_4: out of it" in failed.stderr


def test_under_json_an_error_is_json_too(service: Any, dead: str) -> None:
    url = service("--command", "read -r body; test $body != 2 || { echo no; exit 4; }; echo $body")
    done = run("request", "price", "-", "--json", stdin=b"1\n2\n3\n", url=url)
    assert done.returncode == 1
    first, second, third = lines(done.stdout)
    assert (first, third) == ({"body": 1}, {"body": 3})
    assert second["error"]["name"] == "APPLICATION_ERROR"
    assert second["error"]["code"] == "exit_4"
    assert b"1 request was answered by an error" in done.stderr
    nobody = run("status", "--json", "--timeout", "0.2", url=dead)
    (told,) = lines(nobody.stderr)
    assert (nobody.returncode, nobody.stdout) == (69, b"")
    assert told["error"]["name"] == "UNAVAILABLE"
    assert told["error"]["retryable"]


def test_what_is_no_json_is_a_string(service: Any) -> None:
    with Requester(service("--command", "echo hello world")) as requester:
        assert requester.request("price", None, timeout_s=20) == "hello world"


def test_nobody_offers_the_service(service: Any) -> None:
    done = run("request", "other", "1", url=service())
    assert done.returncode == 69
    assert b"other" in done.stderr


def test_a_reply_that_takes_too_long(service: Any) -> None:
    assert run("request", "price", "1", "--timeout", "0.3", url=service("--command", "sleep 100")).returncode == 75


def test_lines_of_a_command_are_parts_of_the_reply(service: Any) -> None:
    url = service("--stream", "--command", 'read -r n; seq "$n"; test "$n" != 2 || { echo enough >&2; exit 4; }')
    assert run("request", "price", "300", "--stream", url=url).stdout.split() == [b"%d" % n for n in range(1, 301)]
    failed = run("request", "price", "2", "--stream", "--json", url=url)
    assert (failed.returncode, lines(failed.stdout)) == (1, [{"body": 1}, {"body": 2}])
    assert [line["error"]["code"] for line in lines(failed.stderr)] == ["exit_4"]
    whole = run("request", "price", "1", url=url)
    assert (whole.returncode, b"--stream" in whole.stderr) == (1, True)


def test_one_reply_is_one_part(service: Any) -> None:
    assert run("request", "price", "7", "--stream", url=service("--echo")).stdout == b"7\n"
    assert run("reply", "price", "--stream", url="tcp://127.0.0.1:0").returncode == 2


def test_an_address_in_use(bound: str) -> None:
    with Replier(bound, "x") as replier:
        done = run("reply", "x", "--timeout", "0.1", url=replier.address)
    assert done.returncode == 69


# -- through a broker ----------------------------------------------------------------------------------------------


def test_send_prints_each_message_once_it_is_confirmed(broker: str) -> None:
    one = run("send", "confirmed", '{"a": 12345678901234567890123}', "--json", url=broker)
    many = run("send", "confirmed", "-", "--json", "--key", "k", stdin=b"1\n2\n", url=broker)
    assert lines(one.stdout + many.stdout) == [{"offset": at, "duplicate": False} for at in range(3)]
    done = run("receive", "confirmed", "--count", "3", "--json", url=broker)
    first, _, third = lines(done.stdout)
    assert first["body"] == {"a": 12345678901234567890123}
    assert third == {"offset": 2, "attempt": 1, "key": "k", "headers": None, "body": 2}


def test_send_with_a_journal_needs_no_broker_and_the_next_one_forwards(broker: str, dead: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "outbox")
    one = run("send", "kept", "1", "--json", "--journal", folder, url=dead.replace("tcp://", "zb://"))
    assert (one.returncode, lines(one.stdout)) == (0, [{"offset": None, "duplicate": False}])
    assert b"1 message in" in one.stderr
    many = run("send", "kept", "-", "--journal", folder, stdin=b"2\n3\n", url=broker)
    assert (many.returncode, many.stderr) == (0, b"")
    assert run("receive", "kept", "--count", "3", url=broker).stdout == b"1\n2\n3\n"


def test_lines_are_confirmed_while_standard_input_stays_open(broker: str) -> None:
    sender = start("send", "live", "-", "--json", "--url", broker, stdin=PIPE)
    assert sender.stdin is not None
    assert sender.stdout is not None
    for offset in range(3):
        sender.stdin.write(b"{}\n")
        sender.stdin.flush()
        assert json.loads(sender.stdout.readline())["offset"] == offset
    sender.communicate(timeout=20)
    assert sender.returncode == 0


def test_a_bad_line_stops_send_and_says_how_far_it_came(broker: str) -> None:
    done = run("send", "halfway", "-", "--json", stdin=b"1\n2\n{\n4\n", url=broker)
    assert done.returncode == 1
    assert len(lines(done.stdout)) == 2
    [told] = lines(done.stderr)
    assert (told["error"]["name"], told["error"]["line"], told["error"]["done"]) == ("BAD_BODY", 3, 2)
    said = run("send", "halfway", "-", stdin=b"1\n2\n{\n4\n", url=broker)
    assert said.returncode == 1
    assert b"line 3: " in said.stderr
    assert b"2 messages are confirmed" in said.stderr


def test_a_file_is_sent_line_by_line_in_order(broker: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"".join(b"%d\n" % at for at in range(20_000)))
    assert len(lines(run("send", "file", "--file", f"{tmp_path}/f", "--json", url=broker).stdout)) == 20_000
    done = run("receive", "file", "--group", "g", "--count", "20000", url=broker)
    assert done.stdout.split() == [b"%d" % at for at in range(20_000)]
    assert Admin(broker).status()["groups"]["file/g"]["acked"] == 20_000


def test_what_json_cannot_express_is_base64(broker: str) -> None:
    with Producer(broker, "odd") as producer:
        producer.send(b"\xff")
        producer.send([float("inf")])
    with Producer(broker, "odd", codec="raw") as producer:
        producer.send(b"raw")
    done = run("receive", "odd", "--count", "3", "--json", url=broker)
    bodies = [line.get("body_base64") for line in lines(done.stdout)]
    assert None not in bodies
    assert base64.b64decode(bodies[2]) == b"raw"


def test_messages_are_acked_after_they_were_printed_and_not_with_no_ack(broker: str) -> None:
    run("send", "acks", "-", stdin=b"1\n2\n3\n", url=broker)
    for _ in range(2):
        assert run("receive", "acks", "--group", "g", "--no-ack", "--count", "3", url=broker).stdout == b"1\n2\n3\n"
    first = lines(run("receive", "acks", "--group", "g", "--count", "1", "--json", url=broker).stdout)
    assert (first[0]["offset"], first[0]["attempt"]) == (0, 1)
    assert run("receive", "acks", "--group", "g", "--count", "2", url=broker).stdout == b"2\n3\n"
    assert run("receive", "acks", "--group", "g", "--timeout", "0.3", url=broker).stdout == b""


def test_time_is_up(broker: str) -> None:
    run("send", "short", "1", url=broker)
    counted = run("receive", "short", "--count", "2", "--timeout", "0.5", url=broker)
    uncounted = run("receive", "short", "--timeout", "0.5", "--from", "1", url=broker)
    assert (counted.returncode, counted.stdout) == (75, b"1\n")
    assert (uncounted.returncode, uncounted.stdout) == (0, b"")
    assert run("sub", "a", "--timeout", "0.1", "--count", "1", url=broker).returncode == 75


def test_a_time_with_a_zone_or_without_says_where_to_begin(broker: str) -> None:
    run("send", "timed", "1", url=broker)
    for time in ("1970-01-02T00:00:00Z", "2000-01-01", "2000-01-01T00:00+02:00"):
        done = run("receive", "timed", "--from", time, "--count", "1", "--timeout", "30", url=broker)
        assert (done.returncode, done.stdout) == (0, b"1\n"), time
    later = start("receive", "timed", "--from", "9999-01-01T00:00Z", "--group", "g", "--count", "1", "--url", broker)
    until(lambda: b"timed/g" in run("status", "--json", url=broker).stdout, what="the group")
    run("send", "timed", "2", url=broker)
    assert later.communicate(timeout=60)[0] == b"2\n"


def test_a_broken_pipe_ends_quietly_and_acks_nothing_more(broker: str) -> None:
    run("send", "pipe", "-", stdin=b"1\n" * 50_000, url=broker)
    command = f"{' '.join(ZBROKER)} receive pipe --group g --url {broker} | head -n 2; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, check=False)
    assert done.stdout == b"1\n1\n141\n"
    assert done.stderr == b""
    assert Admin(broker).status()["groups"]["pipe/g"]["acked"] < 50_000


@pytest.mark.parametrize("command", [("sub", ">"), ("receive", "quiet"), ("reply", "quiet"), ("send", "quiet", "-")])
def test_interrupt_ends_at_once_without_a_traceback(broker: str, command: tuple[str, ...]) -> None:
    role = {"sub": "subscriber", "receive": "consumer", "reply": "replier", "send": "producer"}[command[0]]
    with Admin(broker) as admin:
        process = start(*command, "--url", broker, stdin=PIPE)
        while not admin.status()["sessions"].get(role):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(3) == 130
        _, complaint = process.communicate()
    assert b"Traceback" not in complaint


def test_status_for_people_and_programs(broker: str) -> None:
    run("send", "seen", "1", url=broker)
    found = lines(run("status", "--json", url=broker).stdout)
    assert len(found) == 1
    sections = {"streams", "groups", "services", "subscriptions", "sessions", "counters", "journal", "warnings"}
    assert sections <= set(found[0])
    assert found[0]["streams"]["seen"]["messages"] == 1
    table = run("status", url=broker).stdout.decode()
    assert "\nseen " in table
    assert "journal" in table


def test_services_through_the_broker(broker: str) -> None:
    replier = start("reply", "shout", "--command", "tr a-z A-Z", "--count", "1", "--json", "--url", broker)
    assert replier.stderr is not None
    assert b"offered" in replier.stderr.readline()
    assert run("request", "shout", '"hi"', url=broker).stdout == b'"HI"\n'
    output, _ = replier.communicate(timeout=20)
    assert replier.returncode == 0
    assert lines(output) == [{"service": "shout", "error": None, "body": "hi"}]


@pytest.mark.parametrize(
    "command",
    [("send", "s", "1"), ("send", "s", "-"), ("receive", "s"), ("status",), ("pub", "t", "1"), ("sub", "t"), ("request", "s", "1")],
)  # fmt: skip
def test_no_broker_is_unavailable(dead: str, command: tuple[str, ...]) -> None:
    done = run(*command, "--timeout", "0.3", stdin=b"1\n", url=dead)
    assert done.returncode == 69
    assert b"no broker answers" in done.stderr


def test_admin_says_what_is_missing(dead: str) -> None:
    with Admin(dead, timeout_s=0.2) as admin:
        with pytest.raises(Unavailable):
            admin.status()
        with pytest.raises(BadArgument):
            admin.create_stream(None)
        with pytest.raises(AttributeError):
            admin.staus  # noqa: B018
    with pytest.raises(NotInThisDeployment):
        Admin("ipc://x")


def test_a_broker_without_data_refuses_streams() -> None:
    process = start("run", "--bind", "tcp://127.0.0.1:0", "--json", "--no-data")
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["addresses"]["native"].replace("tcp://", "zb://")
        assert run("send", "s", "1", url=url).returncode == 77
        assert run("receive", "s", url=url).returncode == 77
    finally:
        process.kill()
        process.communicate()


def test_a_command_and_the_library_are_one_world(broker: str) -> None:
    run("send", "both", '{"sku": 7}', url=broker)
    with Consumer(broker, "both", group="g") as consumer:
        delivery = consumer.receive(20)
        assert delivery is not None
        assert delivery.body == {"sku": 7}
        delivery.ack(confirm=True)
