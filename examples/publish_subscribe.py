"""Two publishers and a subscriber with a wildcard, through a broker; neither side knows the other."""

import os

from patterns.sync import Publisher, Subscriber

ADDRESS = os.environ.get("ZBROKER_URL", "zb://localhost")


def main() -> None:
    with (
        Subscriber(ADDRESS, "sensors.*.temperature", idle_timeout_s=1.0) as subscriber,
        Publisher(ADDRESS) as cellar,
        Publisher(ADDRESS, codec="json") as roof,
    ):
        subscriber.ready()
        for reading in range(1_000):
            cellar.publish("sensors.cellar.temperature", {"celsius": 12 + reading % 3})
            cellar.publish("sensors.cellar.humidity", {"percent": 60})
            roof.publish("sensors.roof.temperature", {"celsius": -4})
        cellar.flush()
        roof.flush()
        seen: dict[str, int] = {}
        for message in subscriber:
            seen[message.topic] = seen.get(message.topic, 0) + 1
        for topic, count in sorted(seen.items()):
            print(f"{topic}: {count}")
        print("lost:", subscriber.lost)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
