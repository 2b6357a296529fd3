"""Log lines that services publish live, and a stream that keeps those of their topics: what went wrong is looked up afterwards, over all services.

Who publishes knows of no stream, and who watches live sees lines as they come. The stream captures by topic, and is read without a group:
from an instant on, by as many as like, leaving no trace.
"""

import os
import sys
import time
from datetime import UTC, datetime, timedelta

from patterns.sync import Admin, Consumer, Publisher, StreamConfig, Subscriber

REQUESTS = 500
FAILS = 137
STEPS = {"gateway": "request taken", "orders": "order booked", "billing": "invoice written"}


def handle(number: int, logs: dict[str, Publisher], name: str) -> None:
    """One request, on its way through three services; each line has the number that they share, and when it was written."""
    for service, text in STEPS.items():
        failed = number == FAILS and service == "billing"
        level, said = ("error", "no such customer") if failed else ("info", text)
        logs[service].publish(f"{name}.{service}.{level}", {"trace": number, "at": time.time_ns(), "text": said})


def wait_until_stored(admin: Admin, stream: str, lines: int) -> None:
    deadline = time.monotonic() + 60
    while admin.show_stream(stream)["messages"] < lines and time.monotonic() < deadline:
        time.sleep(0.05)


def main(address: str) -> None:
    name = f"logs-{os.getpid()}-{time.monotonic_ns()}"
    began = datetime.now(UTC) - timedelta(seconds=1)
    with Admin(address) as admin:
        admin.create_stream(StreamConfig(name, topics=[f"{name}.>"], age_max_s=86_400.0))
        try:
            trace(address, admin, name, began)
        finally:
            admin.delete_stream(name)  # this program's own


def trace(address: str, admin: Admin, name: str, began: datetime) -> None:
    with Subscriber(address, f"{name}.*.error") as errors:
        errors.ready()
        logs = {service: Publisher(address) for service in STEPS}
        for number in range(REQUESTS):
            handle(number, logs, name)
        for publisher in logs.values():
            publisher.close()
        error = next(iter(errors))
        print(f"seen live: {error.topic.removeprefix(name)} {error.body['text']}")

        wait_until_stored(admin, name, REQUESTS * len(STEPS))
    with Consumer(address, name, start=began, idle_timeout_s=1.0) as replay:
        lines = [(line.body, line.topic.removeprefix(name)) for line in replay]
    way = [line for line in lines if line[0]["trace"] == error.body["trace"]]
    for body, topic in sorted(
        way, key=lambda line: line[0]["at"]
    ):  # each publisher is in order, and they are not among each other
        print(f"replayed: {topic} {body['text']}")
    print(f"lines in the stream: {len(lines)}, published: {REQUESTS * len(STEPS)}")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ZBROKER_URL", "zb://localhost"))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
