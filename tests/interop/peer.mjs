// What test_node.py runs: node peer.mjs VERB URL ARGUMENTS.. speaks through examples/node/zb1.mjs and prints JSON lines.
import { randomBytes } from "node:crypto";
import { createInterface } from "node:readline";
import { Dealer } from "zeromq";
import { Admin, Consumer, Producer, Publisher, Replier, Requester, Subscriber } from "./zb1.mjs";

const CHUNK = 50;
const say = (line) => console.log(JSON.stringify(line));
const told = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const order = async () => (await told.next()).value;
const failure = ({ name, number, code, detail }) => ({ error: name, number, code, detail });

async function request(url, service, count, ...options) {
  const requester = new Requester(url);
  await requester.ready;
  say({ ready: true });
  const more = { timeoutMs: 10_000, waitMs: 200, headers: { from: "node" }, idempotent: options.includes("idempotent") };
  if (options.includes("short")) more.timeoutMs = 300;
  const asked = Array.from({ length: Number(count) }, (_, n) => requester.request(service, { n }, more).catch(failure));
  say({ replies: await Promise.all(asked) });
  await requester.close();
}

/** Takes parts, all of them or so many; `n` rows are asked for, and a failure behind them. */
async function stream(url, service, n, takes, fail = "") {
  const requester = new Requester(url);
  await requester.ready;
  say({ ready: true });
  const parts = [];
  let error = null;
  try {
    for await (const part of requester.stream(service, { n: Number(n), fail }, { waitMs: 200 })) {
      parts.push(part);
      if (parts.length === Number(takes)) break;
    }
  } catch (caught) {
    error = failure(caught);
  }
  say({ parts: parts.length, inOrder: parts.every(({ row }, i) => row === i), error });
  await order();
  await requester.close();
}

/** Rows in parts; says how many it made when it is stopped, or done. */
async function rows(url, service) {
  const replier = new Replier(url, service, async function* ({ n, fail }) {
    let made = 0;
    try {
      for (; made < n; made++) yield { row: made };
      if (fail) throw Object.assign(new Error("there are no more"), { code: fail });
    } finally {
      say({ made });
    }
  });
  await replier.ready;
  say({ ready: true });
  await order();
  await replier.close();
}

async function reply(url, service) {
  let served = 0;
  const replier = new Replier(url, service, async ({ n }, { headers, signal }) => {
    served += 1;
    if (n === "fail") throw Object.assign(new Error("there is none"), { code: "no_such_sku" });
    if (n === "break") throw new Error("not foreseen");
    if (n === "wait") {
      say({ waiting: true });
      await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
      say({ cancelled: true });
    }
    return { n, by: "node", headers };
  });
  await replier.ready;
  say({ ready: true });
  await order();
  replier.withdraw();
  await replier.close();
  say({ served });
}

async function publish(url, topic, count) {
  const publisher = new Publisher(url);
  say({ audience: await publisher.waitForSubscribers(1) });
  for (let n = 0; n < Number(count); n++) publisher.publish(`${topic}.${n % 3}`, { n, text: "ä" }, n % 2 ? { odd: "yes" } : null);
  await publisher.close();
  say({ published: Number(count), left: publisher.buffered });
}

async function subscribe(url, pattern, count) {
  const subscriber = new Subscriber(url, [pattern, `also.${pattern}`], { credit: 100 });
  await subscriber.ready;
  say({ ready: true });
  const seen = [];
  while (seen.length < Number(count)) {
    const { topic, body, headers } = await subscriber.receive();
    seen.push([topic, body, headers]);
  }
  say({ seen, lost: subscriber.lost });
  await subscriber.close();
}

/** Messages with ids, "" for none: where each one lies. */
async function identify(url, stream, ...ids) {
  const producer = new Producer(url, stream);
  const first = ids.slice(0, 3).map((id) => producer.send({ id }, { id: id || null }));
  const places = await Promise.all(first);
  places.push(...(await Promise.all(ids.slice(3).map((id) => producer.send({ id }, { id: id || null })))));
  await producer.close();
  say({ places });
}

async function produce(url, stream, count, name = "") {
  const producer = new Producer(url, stream, { name });
  for (let begin = 0; begin < Number(count); begin += CHUNK) {
    const bodies = Array.from({ length: Math.min(CHUNK, Number(count) - begin) }, (_, i) => ({ n: begin + i }));
    // not one batch: half of them after a turn, so that several are under way
    const first = bodies.slice(0, CHUNK / 2).map((body) => producer.send(body, { key: `k${body.n % 2}` }));
    await new Promise(setImmediate);
    const second = bodies.slice(CHUNK / 2).map((body) => producer.send(body, { headers: { from: "node" } }));
    say({ offsets: await Promise.all([...first, ...second]) });
  }
  await producer.close();
  say({ produced: Number(count), sessions: producer.sessions, duplicates: producer.duplicates });
}

async function consume(url, stream, group, count) {
  const consumer = new Consumer(url, stream, { group, credit: 200 });
  await consumer.ready;
  say({ ready: true });
  const acked = new Set();
  let twice = 0, stale = 0;
  for await (const delivery of consumer) {
    const ours = await delivery.ack();
    if (!ours) stale += 1; // told twice over a lost connection, and on disk since the first time
    else if (acked.has(delivery.body.n)) twice += 1;
    acked.add(delivery.body.n);
    if (acked.size % CHUNK === 0) say({ acked: acked.size });
    if (acked.size === Number(count)) break;
  }
  say({ done: [...acked].sort((a, b) => a - b), twice, stale, sessions: consumer.sessions, unreadable: consumer.unreadable });
  await consumer.close();
}

async function settle(url, stream, group) {
  // the first again, the second never more, the third given back, the fourth extended and done
  const consumer = new Consumer(url, stream, { group });
  const first = [];
  for (let i = 0; i < 4; i++) first.push(await consumer.receive());
  const answers = [await first[0].nack(10), await first[1].reject("no good"), await first[2].release(), await first[3].extend(5_000), await first[3].ack()];
  const again = {};
  while (Object.keys(again).length < 2) {
    const delivery = await consumer.receive();
    if (delivery.offset < 4) again[delivery.offset] = delivery.attempt;
    answers.push(await delivery.ack());
  }
  say({ answers: answers.every(Boolean), again, twice: await first[0].ack() });
  await consumer.close();
}

async function read(url, stream, start, count) {
  const consumer = new Consumer(url, stream, { start: /^\d+$/.test(start) ? Number(start) : start });
  const seen = [];
  while (seen.length < Number(count)) {
    const { offset, body, key, headers, attempt, lease } = await consumer.receive();
    seen.push({ offset, body, key, headers, attempt, lease });
  }
  await consumer.close();
  say({ seen });
}

async function status(url) {
  const admin = new Admin(url);
  say(await admin.status());
  await admin.close();
}

/** What a connection gets that has no session, and a client whose session another connection took. */
async function strangers(url) {
  const dealer = (kind, header) => {
    const socket = new Dealer({ linger: 0 });
    socket.connect(url.replace(/^zb:/, "tcp:"));
    socket.send(["ZB1" + kind, JSON.stringify(header)]);
    return socket;
  };
  const heard = async (socket) => {
    for (;;) {
      const [kind, header] = await socket.receive();
      if (kind.toString() !== "ZB1I") return [kind.toString(), JSON.parse(header)]; // B may ask at any time who is there
    }
  };
  const nobody = dealer("I", { token: 1 });
  say({ refused: await heard(nobody) });
  nobody.close();

  const producer = new Producer(url, "strangers");
  const offset = await producer.send({ n: 0 });
  const thief = dealer("H", { role: "producer", nonce: producer.nonce, codec: "json", resume: { epoch: producer.epoch, sequence: 1, leases: [] } });
  const [, ready] = await heard(thief);
  const next = await producer.send({ n: 1 }); // NO_SESSION, a new socket, HELLO with resume, and the same batch again
  say({ resumed: ready.resumed, offsets: [offset, next], sessions: producer.sessions, refusals: producer.heard.N });
  thief.close();

  const odd = dealer("H", { role: "requester", nonce: randomBytes(16).toString("base64"), codec: "json" });
  await heard(odd);
  for (const [kind, header] of [["z", {}], ["I", { token: 7 }], ["G", {}]]) await odd.send(["ZB1" + kind, JSON.stringify(header)]);
  say({ unknown: await heard(odd), pong: await heard(odd), goodbye: await heard(odd) });
  odd.close();
  await producer.close();
}

/** Silent until the heartbeats of section 5 have gone both ways. */
async function idle(url) {
  const requester = new Requester(url);
  await requester.ready;
  requester.heartbeatMs = 200; // sooner than the broker asks for
  while (!(requester.heard.i >= 2)) await new Promise((resolve) => setTimeout(resolve, 20));
  say({ pongs: requester.heard.i, sessions: requester.sessions });
  await requester.close();
}

const verbs = { request, reply, stream, rows, publish, subscribe, produce, identify, consume, settle, read, status, strangers, idle };
await verbs[process.argv[2]](...process.argv.slice(3));
process.exit(0);
