// Asks the service `price` what an article costs: node request.mjs [sku]
import { Requester } from "./zb1.mjs";

const requester = new Requester(process.env.ZBROKER_URL ?? "zb://127.0.0.1:5555"); // or tcp://HOST:PORT of a replier, without a broker
try {
  console.log(JSON.stringify(await requester.request("price", { sku: Number(process.argv[2] ?? 7) })));
} catch (error) {
  console.error(`${error.name} ${error.code}: ${error.detail}`);
  process.exitCode = 1;
} finally {
  await requester.close();
}
