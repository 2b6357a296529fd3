// A client of zbroker in one file: copy it. It speaks ZB1 (patterns/wire/SPEC.md) wholly in JSON; the broker translates
// for peers that speak msgpack. It needs Node.js 18 or newer and the npm package `zeromq` 6.
import { createHash, randomBytes } from "node:crypto";
import { Dealer } from "zeromq";

const BATCH_BYTES = 64 * 1024; // target of a batch; one larger message is a batch of its own
const BATCH_MESSAGES = 65_536;
const UNCONFIRMED_BATCHES = 64;
const SETTLES = 200; // under way at once
const RANGES = 10_000; // in one SETTLE
const PARTS = { messages: 128, bytes: 256 * 1024 }; // of a streamed reply, ahead of who takes them
const FOREVER_MS = 1e11;
const TICK_MS = 100;
const GREETING_MS = 2_000; // a HELLO without an answer for so long is said again, on a new socket

/** What went wrong, as ERROR carries it; of an application error, `code` is the application's own. */
export class ZbError extends Error {
  constructor({ number = 0, name = "", detail = "", code = "", retryable = false, retry_after_ms = 0, scope = "", id = 0 }) {
    super(`${name}: ${detail}`);
    Object.assign(this, { number, name, detail, code, retryable, retryAfterMs: retry_after_ms, scope, id });
  }
}

const outcomeUnknown = (detail) => new ZbError({ number: 600, name: "OUTCOME_UNKNOWN", detail });
const timedOut = (detail) => new ZbError({ number: 602, name: "TIMED_OUT", detail });
const unreadable = (codec) => new ZbError({ number: 302, name: "UNTRANSLATABLE", detail: `it holds what JSON cannot, and came as ${codec}` });
const protocolError = (detail) => new ZbError({ number: 100, name: "PROTOCOL_ERROR", detail });
const closed = () => new ZbError({ number: 112, name: "CLOSED", detail: "it was closed" });

const CRC = Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n >>> 0;
});

/** The channel of a topic: CRC-32 of its first token, modulo 64. */
export function channelOf(topic) {
  let crc = 0xffffffff;
  for (const byte of Buffer.from(topic.split(".", 1)[0])) crc = CRC[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return ((crc ^ 0xffffffff) >>> 0) % 64;
}

/** Whether a pattern covers a topic: `*` is one token, a last `>` one or more. */
export function matches(pattern, topic) {
  const wanted = pattern.split("."), tokens = topic.split(".");
  for (let i = 0; i < wanted.length; i++) {
    if (wanted[i] === ">" && i === wanted.length - 1) return tokens.length > i;
    if (i >= tokens.length || (wanted[i] !== "*" && wanted[i] !== tokens[i])) return false;
  }
  return tokens.length === wanted.length;
}

const canRead = (header) => header.codec === "json" || header.codec === "raw";

/** The frames of a message; `key` is what follows the kind in frame 1. */
function pack(kind, header, bodies, columns, key = "") {
  const frames = [Buffer.concat([Buffer.from("ZB1" + kind), Buffer.from(key)]), JSON.stringify(header)];
  if (columns !== undefined || bodies !== undefined) frames.push(columns ? JSON.stringify(columns) : "");
  if (bodies !== undefined) frames.push(bodies);
  return frames;
}

/** What counts against credit: columns and payload. */
const sizeOf = (frames) => Buffer.byteLength(frames[2] ?? "") + Buffer.byteLength(frames[3] ?? "");

function unpack(frames) {
  const json = (frame) => (frame?.length ? JSON.parse(frame) : {});
  return { kind: String.fromCharCode(frames[0][3]), header: json(frames[1]), columns: json(frames[2]), payload: frames[3], size: sizeOf(frames) };
}

function bodiesOf({ header, columns, payload }) {
  if (header.codec === "json") return JSON.parse(payload);
  if (header.codec !== "raw") throw unreadable(header.codec);
  let at = 0;
  return (columns.sizes ?? [payload.length]).map((size) => payload.subarray(at, (at += size)));
}

/** Messages that wait for whoever iterates; null after the end. */
class Inbox {
  #items = [];
  #waiting = [];
  #ended = false;
  #error = null;
  get length() { return this.#items.length; }
  put(item) {
    const waiting = this.#waiting.shift();
    if (waiting) waiting.resolve(item);
    else this.#items.push(item);
  }
  end(error = null) {
    this.#ended = true;
    this.#error = error;
    for (const { resolve, reject } of this.#waiting.splice(0)) error ? reject(error) : resolve(null);
  }
  take() {
    if (this.#items.length) return Promise.resolve(this.#items.shift());
    if (this.#error) return Promise.reject(this.#error);
    if (this.#ended) return Promise.resolve(null);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }
}

/** One session over as many sockets as it takes. Roles override onReady, onMessage, onDown, onFatal, tick and resume. */
class Session {
  #endpoints;
  #socket = null;
  #outbox = [];
  #writing = false;
  #heardAt = 0;
  #pingedAt = 0;
  #retryAt = 0;
  #timer;
  #goodbye = null;
  #ready = {};

  constructor(address, role, credit = { messages: 1_000, bytes: 4 << 20 }, hello = {}) {
    this.#endpoints = address.split(",").map((one) => one.replace(/^zb:/, "tcp:"));
    this.role = role;
    this.nonce = randomBytes(16).toString("base64");
    this.hello = hello;
    this.window = credit; // how much the other side may have under way towards us
    this.state = "DOWN"; // DOWN, GREETING, READY, CLOSED: the table of section 5
    this.epoch = null; // of the broker that we knew last
    this.sessions = 0; // how many READYs there were
    this.heard = {}; // kind -> how many messages
    this.ready = new Promise((resolve, reject) => (this.#ready = { resolve, reject }));
    this.ready.catch(() => {}); // whoever waits for it gets it; nobody has to
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    queueMicrotask(() => this.#open());
  }

  onReady() {}
  onMessage() {}
  onDown() {}
  onFatal() {}
  tick() {}
  resume() { return {}; }
  becomeReady() { this.#ready.resolve(this); }

  #open() {
    if (this.state === "CLOSED") return;
    const socket = new Dealer({
      linger: 0, immediate: true, sendHighWaterMark: 0, receiveHighWaterMark: 0,
      heartbeatInterval: 2_000, heartbeatTimeout: 6_000, reconnectInterval: 50,
    });
    this.#socket = socket;
    this.#outbox = [];
    this.#writing = false;
    this.state = "GREETING";
    this.#heardAt = Date.now();
    socket.events.on("disconnect", () => this.#down(socket));
    socket.connect(this.#endpoints[0]);
    this.#read(socket);
    const hello = {
      versions: [1, 1], role: this.role, nonce: this.nonce, codec: "json", client: "zb1.mjs",
      credit_messages: this.window.messages, credit_bytes: this.window.bytes, ...this.hello,
    };
    if (this.epoch !== null) hello.resume = { epoch: this.epoch, sequence: 0, leases: [], ...this.resume() };
    this.#put(pack("H", hello));
  }

  async #read(socket) {
    try {
      for await (const frames of socket) {
        if (socket !== this.#socket) return;
        this.#heardAt = Date.now();
        this.#take(unpack(frames));
      }
    } catch (error) {
      if (socket === this.#socket && this.state !== "CLOSED") this.#fatal(error); // else it was closed while we waited
    }
  }

  async #write(socket) {
    this.#writing = true;
    try {
      while (socket === this.#socket && this.#outbox.length) await socket.send(this.#outbox.shift());
    } catch {
      // closed meanwhile: what was queued on it is void
    }
    if (socket === this.#socket) this.#writing = false;
  }

  #put(frames) {
    this.#outbox.push(frames);
    if (!this.#writing) this.#write(this.#socket);
  }

  /** Send a message in the session; roles look at `state` and at the credit before. `bodies` is JSON text of an array. */
  tell(kind, header, bodies, columns, key) {
    const frames = pack(kind, header, bodies, columns, key);
    if (this.state === "READY") this.#put(frames);
    return sizeOf(frames);
  }

  #take(message) {
    const { kind, header } = message;
    this.heard[kind] = (this.heard[kind] ?? 0) + 1;
    if (kind === "h") this.#welcome(header);
    else if (kind === "N") this.#down(this.#socket, 0);
    else if (kind === "I") this.tell("i", { token: header.token ?? 0 });
    else if (kind === "C" && !header.id) this.#widen(header); // with an id it is about one request
    else if (kind === "G") this.#part(header);
    else if (kind === "E" && header.scope === "session") this.#refused(new ZbError(header));
    else if (kind === "E" && header.scope === "command" && !header.id) this.#fatal(new ZbError(header)); // we wrote nonsense
    else if (kind !== "i") this.onMessage(message);
  }

  #welcome(header) {
    const newEpoch = this.epoch !== null && this.epoch !== header.epoch;
    this.state = "READY";
    this.epoch = header.epoch;
    this.sessions += 1;
    this.limits = header.limits ?? {};
    this.heartbeatMs = header.heartbeat_ms || 2_000;
    this.expiryMs = header.expiry_ms || 3 * this.heartbeatMs;
    this.sent = { messages: 0, bytes: 0 }; // against the other side's credit
    this.credit = { messages: header.credit_messages ?? 0, bytes: header.credit_bytes ?? 0 };
    this.read = { messages: 0, bytes: 0 }; // what counts against ours, and was taken
    this.granted = { ...this.window };
    this.onReady(header, newEpoch);
  }

  #widen({ messages = 0, bytes = 0 }) {
    this.credit.messages = Math.max(this.credit.messages, messages);
    this.credit.bytes = Math.max(this.credit.bytes, bytes);
    this.pump?.();
  }

  mayOverrunOnce() { return this.credit.messages > this.sent.messages && this.credit.bytes > this.sent.bytes; }

  spend(count, bytes) {
    this.sent.messages += count;
    this.sent.bytes += bytes;
  }

  /** So much was taken from what we have a credit for; grant it again when half of the window is used up. */
  renew(session, count, bytes) {
    if (session !== this.sessions || this.state !== "READY") return; // counted from zero since
    this.read.messages += count;
    this.read.bytes += bytes;
    const messages = this.read.messages + this.window.messages, size = this.read.bytes + this.window.bytes;
    if (messages - this.granted.messages < this.window.messages / 2 && size - this.granted.bytes < this.window.bytes / 2) return;
    this.granted = { messages, bytes: size };
    this.tell("C", this.granted);
  }

  #refused(error) {
    if (error.retryable) this.#down(this.#socket, error.retryAfterMs);
    else this.#fatal(error);
  }

  #fatal(error) {
    this.#end();
    this.#ready.reject(error);
    this.onFatal(error);
  }

  #part({ retry_after_ms = 0 }) {
    if (this.#goodbye) this.#goodbye();
    else {
      this.#endpoints.push(this.#endpoints.shift()); // turn to the next address
      this.#down(this.#socket, retry_after_ms);
    }
  }

  #down(socket, afterMs = 50) {
    if (socket !== this.#socket || this.state === "CLOSED") return;
    const was = this.state;
    this.state = "DOWN";
    this.#socket = null;
    socket.close();
    this.#retryAt = Date.now() + afterMs;
    if (this.#goodbye) this.#goodbye();
    else if (was === "READY") this.onDown();
    if (afterMs === 0) queueMicrotask(() => this.state === "DOWN" && this.#open());
  }

  #tick() {
    const now = Date.now(), silent = now - this.#heardAt;
    if (this.state === "DOWN" && now >= this.#retryAt) this.#open();
    else if (this.state === "GREETING" && silent > GREETING_MS) this.#down(this.#socket, 0);
    else if (this.state === "READY" && silent > this.expiryMs) this.#down(this.#socket, 0);
    else if (this.state === "READY" && silent > this.heartbeatMs && now - this.#pingedAt > this.heartbeatMs) {
      this.#pingedAt = now;
      this.tell("I", { token: now });
    }
    this.tick(now);
  }

  #end() {
    clearInterval(this.#timer);
    this.state = "CLOSED";
    this.#socket?.close();
    this.#socket = null;
  }

  /** Say goodbye, wait for the answer, and end. What was sent before has then arrived. */
  async close() {
    if (this.state === "CLOSED") return;
    if (this.state === "READY") {
      const answered = new Promise((resolve) => (this.#goodbye = resolve));
      this.tell("G", {});
      const timer = setTimeout(this.#goodbye, 2_000);
      await answered;
      clearTimeout(timer);
    }
    this.#end();
    this.onFatal(null);
  }
}

/** Asks services, of a broker or of repliers peer to peer. */
export class Requester extends Session {
  #pending = new Map(); // id -> request, in the order of asking
  #next = 1;

  constructor(address) { super(address, "requester"); }

  /** The reply's body. Throws ZbError: NO_REPLIER, REPLIER_LOST, OUTCOME_UNKNOWN, TIMED_OUT, or the application's. */
  request(service, body, { timeoutMs = 5_000, waitMs = 1_000, idempotent = false, headers = null } = {}) {
    return new Promise((resolve, reject) => {
      this.#ask({ service, body, timeoutMs, waitMs, idempotent, headers, parts: null, resolve: (message) => resolve(bodiesOf(message)[0]), reject });
    });
  }

  /** The parts of a reply, for `for await`; asks when the loop begins. Leaving the loop tells the replier to stop. */
  async *stream(service, body, { timeoutMs = FOREVER_MS, partTimeoutMs = 5_000, waitMs = 1_000, idempotent = false, headers = null } = {}) {
    const inbox = new Inbox();
    const parts = { inbox, came: 0, taken: { messages: 0, bytes: 0 }, granted: PARTS };
    const resolve = (message) => {
      if (message.header.count !== 0) inbox.put({ body: bodiesOf(message)[0], size: 0 });
      inbox.end();
    };
    const request = this.#ask({ service, body, timeoutMs, waitMs, idempotent, headers, parts, resolve, reject: (error) => inbox.end(error) });
    try {
      for (let part; (part = await within(inbox.take(), partTimeoutMs, `no part from ${service} in time`)); ) {
        this.#took(request, part.size);
        yield part.body;
      }
    } finally {
      this.#leave(request);
    }
  }

  #ask({ body, timeoutMs, ...more }) {
    const payload = Buffer.from(JSON.stringify([body]));
    const request = { ...more, id: this.#next++, payload, deadline: Date.now() + timeoutMs, sent: false };
    if (this.state === "CLOSED") request.reject(closed());
    else {
      this.#pending.set(request.id, request);
      this.pump();
    }
    return request;
  }

  /** Let more parts come before what was granted is used up. */
  #took(request, size) {
    const { taken, granted } = request.parts;
    taken.messages += 1;
    taken.bytes += size;
    const isHalfTaken = granted.messages - taken.messages <= PARTS.messages / 2 || granted.bytes - taken.bytes <= PARTS.bytes / 2;
    if (!isHalfTaken || !this.#pending.has(request.id)) return;
    request.parts.granted = { messages: taken.messages + PARTS.messages, bytes: taken.bytes + PARTS.bytes };
    if (request.sent) this.tell("C", { id: request.id, ...request.parts.granted });
  }

  /** Nobody waits for it any more. */
  #leave(request) {
    if (!this.#pending.has(request.id)) return;
    if (request.sent) this.tell("X", { id: request.id });
    this.#outcome(request, () => {});
  }

  onReady() {
    this.becomeReady();
    this.pump();
  }

  pump() {
    if (this.state !== "READY") return;
    for (const request of this.#pending.values()) {
      if (request.sent) continue;
      if (!this.mayOverrunOnce()) return;
      const remains = request.deadline - Date.now();
      if (remains <= 0) continue; // tick() ends it
      request.sent = true;
      const { id, service, waitMs, idempotent, headers, parts } = request;
      const header = { id, service, timeout_ms: remains, wait_ms: waitMs, idempotent, codec: "json" };
      if (parts) Object.assign(header, { credit_messages: PARTS.messages, credit_bytes: PARTS.bytes });
      request.size = this.tell("Q", header, request.payload, headers ? { headers: [headers] } : undefined);
      this.spend(1, request.size);
    }
  }

  onMessage(message) {
    const { kind, header, size } = message;
    if (kind === "q" || kind === "p") this.renew(this.sessions, 1, size);
    const request = this.#pending.get(header.id);
    if (!request) return; // its time was over
    if (kind === "p") this.#part(request, message);
    else if (kind === "q" && (header.parts ?? 0) !== (request.parts?.came ?? 0)) {
      this.#outcome(request, () => request.reject(protocolError(`the reply counts ${header.parts ?? 0} parts`)));
    } else if (kind === "q" && header.count !== 0 && !canRead(header)) this.#outcome(request, () => request.reject(unreadable(header.codec)));
    else if (kind === "q") this.#outcome(request, () => request.resolve(message));
    else if (kind === "E" && header.scope === "request") this.#outcome(request, () => request.reject(new ZbError(header)));
  }

  #part(request, message) {
    const { header, size } = message, parts = request.parts;
    const isNext = parts && (header.sequence ?? 0) === parts.came;
    if (!isNext || !canRead(header)) {
      this.#leave(request);
      request.reject(isNext ? unreadable(header.codec) : protocolError(`part ${header.sequence ?? 0} is not the next`));
      return;
    }
    parts.came += 1;
    parts.inbox.put({ body: bodiesOf(message)[0], size });
  }

  #outcome(request, tell) {
    this.#pending.delete(request.id);
    if (request.sent) this.spend(-1, -request.size); // this part of the credit renews itself
    tell();
    this.pump();
  }

  tick(now) {
    for (const request of [...this.#pending.values()]) {
      if (now < request.deadline) continue;
      if (request.sent) this.tell("X", { id: request.id });
      this.#outcome(request, () => request.reject(timedOut(`no reply from ${request.service} in time`)));
    }
  }

  onDown() {
    for (const request of [...this.#pending.values()]) {
      if (!request.sent) continue;
      request.sent = false;
      if (request.idempotent && !request.parts?.came) continue; // asked again
      this.#pending.delete(request.id);
      request.reject(outcomeUnknown("the connection was lost while the request was under way"));
    }
  }

  onFatal(error) {
    for (const request of this.#pending.values()) request.reject(error ?? closed());
    this.#pending.clear();
  }
}

/** What the promise gives, if it does so in time. */
async function within(promise, ms, detail) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(timedOut(detail)), Math.min(ms, 2 ** 31 - 1))));
  promise.catch(() => {}); // whoever comes late meets nobody
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A request that a handler works on: whether somebody waits, and how many parts he lets come. */
class Work extends AbortController {
  #wake = () => {};

  constructor({ credit_messages = 0, credit_bytes = 0 }) {
    super();
    this.takesParts = credit_messages > 0;
    this.credit = { messages: credit_messages, bytes: credit_bytes };
    this.sent = { messages: 0, bytes: 0 };
    this.signal.addEventListener("abort", () => this.#wake());
  }

  widen({ messages = 0, bytes = 0 }) {
    this.credit = { messages: Math.max(messages, this.credit.messages), bytes: Math.max(bytes, this.credit.bytes) };
    this.#wake();
  }

  /** True when the next part may come, false when nobody waits any more. */
  async room() {
    while (!this.signal.aborted && (this.sent.messages >= this.credit.messages || this.sent.bytes >= this.credit.bytes)) {
      await new Promise((resolve) => (this.#wake = resolve));
    }
    return !this.signal.aborted;
  }
}

/**
 * Offers a service; the handler gets (body, request) and returns the reply. A thrown error's `code` reaches the requester.
 * An async generator yields the parts of a streamed reply: it runs as far as the requester takes them.
 */
export class Replier extends Session {
  #working = new Map();

  onDown() {
    for (const work of this.#working.values()) work.abort(); // nobody can be answered any more
  }

  constructor(address, service, handler, { atOnce = 16 } = {}) {
    super(address, "replier", { messages: atOnce, bytes: 4 << 20 });
    this.service = service;
    this.handler = handler;
  }

  onReady() {
    this.#working.clear();
    this.tell("O", { id: 1, service: this.service });
  }

  onMessage(message) {
    const { kind, header } = message;
    if (kind === "o") this.becomeReady();
    else if (kind === "Q") this.#serve(message);
    else if (kind === "X") this.#working.get(header.id)?.abort();
    else if (kind === "C") this.#working.get(header.id)?.widen(header);
    else if (kind === "E" && header.scope === "offer") this.onFatal(new ZbError(header));
  }

  async #serve(message) {
    const { header, columns } = message;
    const session = this.sessions, deadline = Date.now() + (header.timeout_ms ?? 0);
    const { id, service } = header;
    const work = new Work(header);
    this.#working.set(id, work);
    const tell = (kind, more, body) => session === this.sessions && this.tell(kind, { id, ...more }, body);
    const request = { service, headers: columns.headers?.[0] ?? null, deadline, signal: work.signal, takesParts: work.takesParts };
    try {
      const made = this.handler(bodiesOf(message)[0], request);
      if (made?.[Symbol.asyncIterator]) await this.#serveParts(work, made, tell);
      else {
        const body = JSON.stringify([await made]);
        if (!work.signal.aborted) tell("q", { codec: "json" }, body);
      }
    } catch (error) {
      const [number, name] = error instanceof ZbError ? [error.number, error.name] : error.code ? [700, "APPLICATION_ERROR"] : [701, "HANDLER_FAILED"];
      const detail = error.detail ?? String(error.message ?? error);
      if (!work.signal.aborted) tell("E", { number, name, detail, scope: "request", code: error.code ?? "" });
    }
    if (work.signal.aborted) tell("E", { number: 603, name: "CANCELLED", scope: "request" }); // nobody reads it, but it renews our credit
    if (session === this.sessions) this.#working.delete(id);
  }

  async #serveParts(work, parts, tell) {
    if (!work.takesParts) throw new ZbError({ number: 304, name: "BAD_ARGUMENT", detail: `service ${this.service} replies in parts: ask for a stream` });
    try {
      while (await work.room()) {
        const { value, done } = await parts.next();
        if (work.signal.aborted) return;
        if (done) {
          tell("q", { count: 0, parts: work.sent.messages });
          return;
        }
        const sequence = work.sent.messages;
        work.sent.messages += 1;
        work.sent.bytes += tell("p", { sequence, codec: "json" }, Buffer.from(JSON.stringify([value]))) || 0;
      }
    } finally {
      await parts.return?.();
    }
  }

  /** Take no more requests; those under way are still answered. */
  withdraw() { this.tell("W", { service: this.service }); }
}

/** Publishes; what is lost is counted where it is lost. */
export class Publisher extends Session {
  #lanes = new Map(); // channel -> {sequence, waiting}
  #scheduled = false;
  #audience = [];

  constructor(address, { bufferMax = 100_000 } = {}) {
    super(address, "publisher");
    this.name = createHash("sha256").update(Buffer.from(this.nonce, "base64")).digest().subarray(0, 16).toString("base64");
    this.bufferMax = bufferMax;
    this.buffered = 0;
    this.subscribers = 0;
  }

  publish(topic, body, headers = null) {
    if (this.buffered >= this.bufferMax) throw new ZbError({ number: 401, name: "BUFFER_FULL", detail: "publish slower", retryable: true });
    const channel = channelOf(topic);
    if (!this.#lanes.has(channel)) this.#lanes.set(channel, { channel, sequence: 0, waiting: [] });
    this.#lanes.get(channel).waiting.push({ topic, text: JSON.stringify(body), headers });
    this.buffered += 1;
    if (!this.#scheduled) queueMicrotask(() => this.pump());
    this.#scheduled = true;
  }

  /** Until all of it is written, say goodbye then. */
  async close() {
    while (this.buffered && this.state !== "CLOSED") await new Promise((resolve) => setTimeout(resolve, 5));
    await super.close();
  }

  /** When so many subscribers listen to the broker. */
  waitForSubscribers(count = 1) {
    return new Promise((resolve) => {
      this.#audience.push({ count, resolve });
      this.#tellAudience();
    });
  }

  #tellAudience() {
    for (const one of [...this.#audience]) {
      if (this.subscribers < one.count) continue;
      this.#audience.splice(this.#audience.indexOf(one), 1);
      one.resolve(this.subscribers);
    }
  }

  onReady() {
    this.becomeReady();
    this.pump();
  }

  onMessage({ kind, header }) {
    if (kind !== "w") return;
    this.subscribers = header.subscribers ?? 0;
    this.#tellAudience();
  }

  pump() {
    this.#scheduled = false;
    for (const lane of this.#lanes.values()) {
      while (lane.waiting.length && this.state === "READY" && this.mayOverrunOnce()) this.#batch(lane);
    }
  }

  #batch(lane) {
    const items = take(lane.waiting);
    const topics = [...new Set(items.map((item) => item.topic))];
    const payload = Buffer.from(`[${items.map((item) => item.text).join(",")}]`);
    const header = { publisher: this.name, sequence: lane.sequence, count: items.length, codec: "json" };
    const columns = {};
    if (topics.length === 1) header.topic = topics[0];
    else Object.assign(columns, { topics, topic: items.map((item) => topics.indexOf(item.topic)) });
    if (items.some((item) => item.headers)) columns.headers = items.map((item) => item.headers);
    lane.sequence += items.length;
    this.buffered -= items.length;
    this.spend(items.length, this.tell("P", header, payload, Object.keys(columns).length ? columns : undefined, [lane.channel]));
  }
}

/** As many items from the front as one batch takes. */
function take(waiting) {
  let count = 0, bytes = 0;
  while (count < waiting.length && count < BATCH_MESSAGES) {
    bytes += Buffer.byteLength(waiting[count].text) + 1;
    if (count && bytes > BATCH_BYTES) break;
    count += 1;
  }
  return waiting.splice(0, count);
}

/** Yields {topic, body, headers} of what its patterns match; `lost` counts what the broker could not hold for it. */
export class Subscriber extends Session {
  #inbox = new Inbox();
  #answered = new Set();

  constructor(address, patterns, { credit = 1_000 } = {}) {
    super(address, "subscriber", { messages: credit, bytes: 4 << 20 });
    this.patterns = [patterns].flat();
    this.lostBefore = 0; // in sessions before this one
    this.lostNow = { messages: 0, upstream: 0 };
    this.interruptions = 0;
    this.unreadable = 0; // what JSON cannot hold comes as it was published
  }

  get lost() { return this.lostBefore + this.lostNow.messages + this.lostNow.upstream; }

  onReady(_header, _newEpoch) {
    if (this.sessions > 1) this.interruptions += 1;
    this.lostBefore = this.lost;
    this.lostNow = { messages: 0, upstream: 0 };
    this.#answered.clear();
    this.patterns.forEach((pattern, i) => this.tell("S", { id: i + 1, pattern }));
  }

  onMessage(message) {
    const { kind, header, columns, size } = message;
    if (kind === "s") {
      this.#answered.add(header.id);
      if (this.#answered.size === this.patterns.length) this.becomeReady();
    } else if (kind === "l") {
      for (const total in this.lostNow) this.lostNow[total] = Math.max(this.lostNow[total], header[total] ?? 0);
    } else if (kind === "E" && header.scope === "subscription") this.#inbox.end(new ZbError(header));
    else if (kind === "P" && !canRead(header)) {
      this.unreadable += header.count;
      this.renew(this.sessions, header.count, size);
    } else if (kind === "P") {
      const bodies = bodiesOf(message), session = this.sessions;
      bodies.forEach((body, i) => {
        const topic = columns.topics ? columns.topics[columns.topic[i]] : header.topic;
        const wanted = this.patterns.some((pattern) => matches(pattern, topic));
        if (wanted) this.#inbox.put({ topic, body, headers: columns.headers?.[i] ?? null, session, bytes: i ? 0 : size });
        else this.renew(session, 1, i ? 0 : size);
      });
    }
  }

  /** The next message, or null once it is closed. */
  async receive() {
    const message = await this.#inbox.take();
    if (message) this.renew(message.session, 1, message.bytes);
    return message;
  }

  async *[Symbol.asyncIterator]() {
    for (let message; (message = await this.receive()); ) yield message;
  }

  onFatal(error) { this.#inbox.end(error); }
}

/** Stores messages in a stream. What was not confirmed when a connection is lost is sent again, and stored once. */
export class Producer extends Session {
  #waiting = []; // messages of no batch yet
  #unconfirmed = []; // batches, in order
  #exceptions = []; // [sequence, place, offset, count]: messages that lie elsewhere, for their ids were known
  #sequence = 0;
  #identity = null;
  #scheduled = false;
  #resendAt = 0;

  constructor(address, stream, { name = "", confirm = "durable" } = {}) {
    super(address, "producer", { messages: 0, bytes: 0 }, { name });
    Object.assign(this, { stream, confirm, duplicates: 0 });
  }

  /** The offset of the message, when it is on disk; of one that the stream knows by its id, that of the first. */
  send(body, { key = null, headers = null, id = null } = {}) {
    if (this.state === "CLOSED") return Promise.reject(closed());
    return new Promise((resolve, reject) => {
      this.#waiting.push({ text: JSON.stringify(body), key, headers, id, resolve, reject });
      if (!this.#scheduled) queueMicrotask(() => this.pump());
      this.#scheduled = true;
    });
  }

  resume() { return { sequence: this.#sequence }; }

  onReady(header) {
    const known = this.#identity, producer = { id: 0, epoch: 0, sequence: 0, ...header.producer };
    this.#identity = producer;
    if (known && known.id !== producer.id) this.#forgotten();
    if (!known) this.#sequence = producer.sequence;
    this.#again(producer.sequence);
    this.becomeReady();
    this.pump();
  }

  #forgotten() {
    for (const batch of this.#unconfirmed.splice(0)) batch.items.forEach((item) => item.reject(outcomeUnknown("the broker forgot this producer")));
    this.#sequence = this.#identity.sequence;
  }

  /** Send all that is unconfirmed once more; the first batch above what the broker has names that as its previous one. */
  #again(accepted) {
    this.#resendAt = 0;
    const next = this.#unconfirmed.find((batch) => batch.sequence > accepted);
    if (next) next.previous = accepted;
    for (const batch of this.#unconfirmed) batch.sent = false;
  }

  pump() {
    this.#scheduled = false;
    if (this.state !== "READY" || this.#resendAt) return;
    for (const batch of this.#unconfirmed) {
      if (batch.sent) continue;
      if (!this.mayOverrunOnce()) return;
      this.#put(batch);
    }
    while (this.#waiting.length && this.#unconfirmed.length < UNCONFIRMED_BATCHES && this.mayOverrunOnce()) {
      const items = take(this.#waiting);
      const last = this.#unconfirmed.at(-1)?.sequence ?? this.#sequence;
      const batch = { items, previous: last, sequence: last + 1, payload: Buffer.from(`[${items.map((item) => item.text).join(",")}]`) };
      this.#sequence = batch.sequence;
      this.#unconfirmed.push(batch);
      this.#put(batch);
    }
  }

  #put(batch) {
    const { items, sequence, previous, payload } = batch;
    const columns = {};
    for (const [column, field] of [["keys", "key"], ["headers", "headers"], ["ids", "id"]]) {
      if (items.some((item) => item[field] !== null)) columns[column] = items.map((item) => item[field]);
    }
    const { id, epoch } = this.#identity;
    batch.sent = true;
    const size = this.tell("A", {
      stream: this.stream, producer: id, producer_epoch: epoch, sequence, previous, count: items.length, codec: "json", confirm: this.confirm,
    }, payload, Object.keys(columns).length ? columns : undefined);
    this.spend(items.length, size);
  }

  onMessage({ kind, header }) {
    if (kind === "a") this.#confirmed(header);
    else if (kind === "E" && header.scope === "append") this.#refused(new ZbError(header));
  }

  #confirmed({ sequence = 0, offsets = [], duplicates = [], exceptions = [] }) {
    this.duplicates += duplicates.length;
    this.#exceptions.push(...exceptions);
    for (let offset of offsets) {
      const batch = this.#unconfirmed.shift(), known = new Map();
      for (const [number, place, at, count] of this.#exceptions) {
        for (let more = 0; number === batch.sequence && more < count; more += 1) known.set(place + more, at + more);
      }
      batch.items.forEach((item, i) => item.resolve(known.get(i) ?? offset++));
    }
    this.#exceptions = this.#exceptions.filter(([number]) => number > sequence);
    if (this.#unconfirmed.length && this.#unconfirmed[0].sequence <= sequence) throw new Error("a CONFIRM with fewer offsets than batches");
    this.pump();
  }

  #refused(error) {
    if (error.retryable) {
      this.#resendAt ||= Date.now() + error.retryAfterMs;
      return;
    }
    const at = this.#unconfirmed.findIndex((batch) => batch.sequence === error.id);
    if (at < 0) return;
    for (const item of this.#unconfirmed.splice(at, 1)[0].items) item.reject(error);
  }

  tick(now) {
    if (!this.#resendAt || now < this.#resendAt || this.state !== "READY") return;
    this.#resendAt = 0;
    for (const batch of this.#unconfirmed) batch.sent = false;
    this.pump();
  }

  onFatal(error) {
    for (const batch of this.#unconfirmed.splice(0)) batch.items.forEach((item) => item.reject(error ?? outcomeUnknown("closed before it was confirmed")));
    for (const item of this.#waiting.splice(0)) item.reject(error ?? closed());
  }
}

function rangesOf(offsets) {
  const ranges = [];
  for (const offset of offsets) {
    if (ranges.length && ranges.at(-1)[1] + 1 === offset) ranges.at(-1)[1] = offset;
    else ranges.push([offset, offset]);
  }
  return ranges;
}

/** Takes messages of a stream, as a member of a group or (group "") alone; yields deliveries to ack, nack or reject. */
export class Consumer extends Session {
  #inbox = new Inbox();
  #held = new Map(); // lease -> offsets that are not settled
  #queue = []; // what is to be settled
  #settling = new Map(); // id -> {header, told}, until SETTLED
  #next = 1;

  constructor(address, stream, { group = "", start = "first", credit = 1_000 } = {}) {
    super(address, "consumer", { messages: credit, bytes: 4 << 20 });
    Object.assign(this, { stream, group, start, stale: 0, unreadable: 0, damaged: [] });
    this.reads = null; // without a group: where to go on
  }

  resume() { return { leases: [...this.#held.keys()] }; }

  onReady() {
    const start = this.group === "" && this.reads !== null ? this.reads : this.start;
    this.tell("J", { id: 1, stream: this.stream, group: this.group, start, mode: "slices" });
    for (const { header } of this.#settling.values()) this.tell("K", header);
  }

  onMessage(message) {
    const { kind, header } = message;
    if (kind === "j") this.becomeReady();
    else if (kind === "D") this.#deliver(message);
    else if (kind === "k") this.#settled(header);
    else if (kind === "l") this.damaged.push([header.first ?? 0, header.last ?? 0]);
    else if (kind === "E" && header.number === 110) this.stale += 1;
    else if (kind === "E") this.onFatal(new ZbError(header));
  }

  #deliver(message) {
    const { header, columns, size } = message;
    const { lease = 0, offset = 0, attempt = 1, published_at = 0 } = header, session = this.sessions;
    if (!canRead(header)) {
      this.unreadable += header.count;
      this.renew(session, header.count, size);
      if (lease) this.tell("K", { lease, action: "reject", reason: unreadable(header.codec).message });
      return;
    }
    const bodies = bodiesOf(message);
    const offsets = bodies.map((_, i) => offset + (columns.offsets?.[i] ?? i));
    if (lease) this.#held.set(lease, new Set(offsets));
    else this.reads = offsets.at(-1) + 1;
    bodies.forEach((body, i) => {
      const at = offsets[i];
      this.#inbox.put({
        body, offset: at, attempt, lease, session, bytes: i ? 0 : size,
        key: columns.keys?.[i] ?? null, headers: columns.headers?.[i] ?? null,
        topic: columns.topics ? columns.topics[columns.topic[i]] : header.topic ?? "",
        publishedAt: new Date(published_at + (columns.published?.[i] ?? 0)),
        ack: () => this.#settle(lease, at, "ack"),
        nack: (delayMs = 0) => this.#settle(lease, at, "nack", { delay_ms: delayMs }),
        reject: (reason) => this.#settle(lease, at, "reject", { reason }),
        release: () => this.#settle(lease, at, "release"),
        extend: (ms) => this.#settle(lease, at, "extend", { delay_ms: ms }),
      });
    });
  }

  /** Whether it was still ours, when the operation is on disk. Over a lost connection it is said again. */
  #settle(lease, offset, action, more = {}) {
    if (!lease) return Promise.resolve(true);
    return new Promise((resolve, reject) => {
      this.#queue.push({ lease, action, offset, more, resolve, reject });
      if (this.#queue.length === 1) queueMicrotask(() => this.#say());
    });
  }

  /** Write what waits: acks of one lease go together, and no more SETTLEs are under way than B lets unread. */
  #say() {
    while (this.#queue.length && this.#settling.size < SETTLES) {
      const { lease, action, more } = this.#queue[0];
      const alike = (one) => one.lease === lease && one.action === "ack" && action === "ack";
      let count = 1;
      while (count < this.#queue.length && count < RANGES && alike(this.#queue[count])) count += 1;
      const told = this.#queue.splice(0, count);
      const header = { id: this.#next++, lease, action, ranges: rangesOf(told.map(({ offset }) => offset)), ...more };
      this.#settling.set(header.id, { header, told });
      this.tell("K", header);
    }
  }

  #settled({ id, stale = 0 }) {
    const { header, told } = this.#settling.get(id) ?? {};
    if (!header) return;
    this.#settling.delete(id);
    this.stale += stale;
    const held = this.#held.get(header.lease);
    if (held && header.action !== "extend") {
      for (const { offset } of told) held.delete(offset);
      if (!held.size) this.#held.delete(header.lease);
    }
    for (const { resolve } of told) resolve(stale === 0);
    this.#say();
  }

  /** The next delivery, or null once it is closed. */
  async receive() {
    const delivery = await this.#inbox.take();
    if (delivery) this.renew(delivery.session, 1, delivery.bytes);
    return delivery;
  }

  async *[Symbol.asyncIterator]() {
    for (let delivery; (delivery = await this.receive()); ) yield delivery;
  }

  onFatal(error) {
    const told = [...this.#settling.values()].flatMap((one) => one.told);
    for (const { reject } of [...told, ...this.#queue.splice(0)]) reject(error ?? closed());
    this.#settling.clear();
    this.#inbox.end(error);
  }
}

/** Asks a broker about itself. */
export class Admin extends Session {
  #asked = new Map();
  #next = 1;

  constructor(address) { super(address, "admin"); }

  async status(args = {}) {
    await this.ready;
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      this.#asked.set(id, { resolve, reject });
      this.tell("M", { id, verb: "status", arguments: args });
    });
  }

  onReady() { this.becomeReady(); }

  onMessage(message) {
    const { kind, header } = message;
    const asked = this.#asked.get(header.id);
    this.#asked.delete(header.id);
    if (kind === "m") asked?.resolve(bodiesOf(message)[0]);
    else if (kind === "E") asked?.reject(new ZbError(header));
  }

  onDown() { this.onFatal(outcomeUnknown("the connection was lost")); }

  onFatal(error) {
    for (const { reject } of this.#asked.values()) reject(error ?? closed());
    this.#asked.clear();
  }
}
