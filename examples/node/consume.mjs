// Works invoices off as a member of the group `billing`: node consume.mjs [COUNT]
import { Consumer } from "./zb1.mjs";

const consumer = new Consumer(process.env.ZBROKER_URL ?? "zb://127.0.0.1:7700", "invoices", { group: "billing" });
const count = Number(process.argv[2] ?? Infinity);
for (let done = 0; done < count; done++) {
  const delivery = await consumer.receive();
  console.log(delivery.offset, JSON.stringify(delivery.body));
  await delivery.ack(); // or nack(delayMs), reject(reason)
}
await consumer.close();
