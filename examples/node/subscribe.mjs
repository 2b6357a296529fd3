// Prints orders as they come: node subscribe.mjs [PATTERN] [COUNT]
import { Subscriber } from "./zb1.mjs";

const [pattern = "orders.>", count = "Infinity"] = process.argv.slice(2);
const subscriber = new Subscriber(process.env.ZBROKER_URL ?? "zb://127.0.0.1:7700", pattern);
await subscriber.ready;
console.log("listening");
for (let seen = 0; seen < Number(count); seen++) {
  const { topic, body } = await subscriber.receive();
  console.log(topic, JSON.stringify(body));
}
console.log("lost:", subscriber.lost);
await subscriber.close();
