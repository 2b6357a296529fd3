// Asks the service `price` what an article costs: node request.mjs [SKU]
import { Requester } from "./zb1.mjs";

// a broker, or tcp://HOST:PORT of a replier, without one
const requester = new Requester(process.env.ZBROKER_URL ?? "zb://127.0.0.1:7700");
try {
  console.log(JSON.stringify(await requester.request("price", { sku: Number(process.argv[2] ?? 7) }, { timeoutMs: 2_000 })));
} catch (error) {
  console.error(`${error.name} ${error.code}: ${error.detail}`);
  process.exitCode = 1;
}
await requester.close();
