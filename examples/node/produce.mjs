// Stores invoices, and tells where each is on disk: node produce.mjs [COUNT]
import { Producer } from "./zb1.mjs";

const producer = new Producer(process.env.ZBROKER_URL ?? "zb://127.0.0.1:7700", "invoices");
const count = Number(process.argv[2] ?? 3);
const stored = Array.from({ length: count }, (_, n) => producer.send({ invoice: n }, { key: `customer-${n}` }));
for (const offset of await Promise.all(stored)) console.log("on disk at", offset);
await producer.close();
