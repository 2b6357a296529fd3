// Offers the service `price`: node reply.mjs
import { Replier } from "./zb1.mjs";

const prices = { 7: 42 };
const replier = new Replier(process.env.ZBROKER_URL ?? "zb://127.0.0.1:7700", "price", ({ sku }) => {
  if (!(sku in prices)) throw Object.assign(new Error(`no article ${sku}`), { code: "no_such_sku" });
  return { sku, price: prices[sku] };
});
await replier.ready;
console.log("offering price; Ctrl-C ends it");
process.on("SIGINT", () => replier.close());
