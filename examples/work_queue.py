"""A durable work queue: a producer, and two workers of one group, one of which is killed in the middle."""

import multiprocessing
import os

from patterns.sync import Admin, Consumer, Producer

ADDRESS = os.environ.get("ZBROKER_URL", "zb://localhost")
STREAM = f"jobs-{os.getpid()}"  # a stream of our own each time, which goes when we do
JOBS = 5_000


def careless(address: str, stream: str) -> None:
    """Takes work, does a tenth of it, and dies without a word."""
    with Consumer(address, stream, group="workers") as consumer:
        for done, delivery in enumerate(consumer, start=1):
            delivery.ack(confirm=True)
            if done == 20:
                os._exit(1)


def main() -> None:
    with Producer(ADDRESS, STREAM) as producer:
        receipts = producer.send_many({"job": number} for number in range(JOBS))
        print(f"{len(receipts)} jobs on disk")
    try:
        work_off()
    finally:
        with Admin(ADDRESS) as admin:
            admin.delete_stream(STREAM)


def work_off() -> None:
    victim = multiprocessing.get_context("spawn").Process(target=careless, args=(ADDRESS, STREAM))
    victim.start()
    victim.join()
    with Consumer(ADDRESS, STREAM, group="workers", idle_timeout_s=4.0) as consumer:
        first, again = 0, 0
        for delivery in consumer:
            if delivery.attempt == 1:
                first += 1
            else:
                again += 1
            delivery.ack()
    print(f"done by the other: {first + again}, {'some' if again else 'none'} of them begun by the one that died")
    print("all jobs done:", first + again + 20 == JOBS)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
