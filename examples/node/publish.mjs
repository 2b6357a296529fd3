// Publishes two orders, once somebody listens: node publish.mjs
import { Publisher } from "./zb1.mjs";

const publisher = new Publisher(process.env.ZBROKER_URL ?? "zb://127.0.0.1:7700");
await publisher.waitForSubscribers(1);
publisher.publish("orders.eu.created", { order: 1 });
publisher.publish("orders.us.created", { order: 2 });
await publisher.close();
