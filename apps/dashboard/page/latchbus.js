// @ts-check
/**
 * Latchbus for the browser: one module without dependencies.
 *
 *     import { connect } from '/latchbus.js';
 *     const bus = connect();
 *     bus.topic('clicks/main/values').subscribe(({ value }) => console.log(value.red, value.blue));
 *     await bus.publish('lab/temp', { c: 21.5 }, { retain: true });
 *
 * `bus.topic(filter)` listens at once, is shared by all of its subscribers and replays the last value of every
 * topic to whoever comes late. A lost connection is found, opened again and resumed where it was left. Nothing is
 * queued while there is none: `publish` rejects, and the caller, who knows what is still worth saying, decides.
 */

/** @import * as shapes from './shapes.js' */
/** @typedef {shapes.Message} Message */
/** @template T @typedef {shapes.Observer<T>} Observer */
/** @typedef {shapes.State} State */
/** @typedef {shapes.TopicOptions} TopicOptions */
/** @typedef {shapes.Ack} Ack */

const PROTOCOL = 'latchbus.v1.json';
/** First step and ceiling of the back-off; the wait is drawn evenly between zero and the step (full jitter). */
const BACKOFF_MS = 500;
const BACKOFF_MAX_MS = 10_000;
/** A connection that lived this long was a good one: the next back-off starts over. */
const STABLE_MS = 5_000;
/** From the start of an attempt to the hub's welcome. */
const WELCOME_MS = 10_000;
/** From a ping to any sign of life, and from there to the next ping: a half-open connection hides for at most 14 s. */
const PONG_MS = 3_000;
const IDLE_MS = 8_000;
/** Publishes that wait for their answer; one more is refused with `full`. */
const MAX_IN_FLIGHT = 1_000;
/** Topics whose last message a store keeps; at the bound the one that has not changed for longest is forgotten. */
const MAX_TOPICS = 50_000;

/** A refusal by the hub (its code), or `disconnected`, `full` (too many in flight here), `closed`. */
export class BusError extends Error {
  /** @param {string} code @param {string} [message] */
  constructor(code, message) {
    super(message ?? code);
    this.code = code;
  }
}

/**
 * A store: keeps its last value and gives it to each new subscriber. Fits Svelte's store contract, `for await`
 * (a slow loop gets the newest value of each topic, never a backlog) and, by `Symbol.observable`, RxJS's `from`.
 * @template T
 */
export class Latch {
  /** @type {Set<{ observer: Observer<T> }>} */
  #entries = new Set();
  /** @type {T | undefined} */
  value;

  /** @param {T} [value] */
  constructor(value) {
    this.value = value;
  }

  /**
   * @param {Observer<T> | ((value: T) => void)} observer
   * @returns {(() => void) & { unsubscribe(): void }}
   */
  subscribe(observer) {
    const entry = { observer: typeof observer === 'function' ? { next: observer } : observer };
    this.#entries.add(entry);
    this.replay(entry.observer);
    const stop = () => void this.#entries.delete(entry);
    return Object.assign(stop, { unsubscribe: stop });
  }

  /** @protected @param {Observer<T>} observer */
  replay(observer) {
    if (this.value !== undefined) call(observer, 'next', this.value);
  }

  /** @param {T} value */
  set(value) {
    this.value = value;
    this.emit('next', value);
  }

  /** @protected @param {keyof Observer<T>} kind @param {any} [argument] */
  emit(kind, argument) {
    for (const { observer } of [...this.#entries]) call(observer, kind, argument);
  }

  /** Ends every subscription. */
  close() {
    this.emit('complete');
    this.#entries.clear();
  }

  async *[Symbol.asyncIterator]() {
    /** @type {Map<any, T>} */
    const waiting = new Map();
    let open = true;
    let wake = () => {};
    const stop = this.subscribe({
      next(value) {
        const key = /** @type {any} */ (value)?.topic;
        waiting.delete(key);
        waiting.set(key, value);
        wake();
      },
      complete() {
        open = false;
        wake();
      },
    });
    try {
      while (open || waiting.size) {
        for (const [key, value] of waiting) {
          waiting.delete(key);
          yield value;
          break;
        }
        if (open && !waiting.size) await new Promise((resolve) => (wake = () => resolve(undefined)));
      }
    } finally {
      stop();
    }
  }

  ['@@observable']() {
    return this;
  }
}
const observable = /** @type {any} */ (Symbol).observable;
if (observable) Object.assign(Latch.prototype, { [observable]: Latch.prototype['@@observable'] });

/** One observer's fault must not end the others. @param {any} observer @param {string} kind @param {any} argument */
function call(observer, kind, argument) {
  try {
    observer[kind]?.(argument);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/**
 * The messages of one filter. `value` is the newest message, `last` the newest of each topic that has a value.
 * @extends {Latch<Message>}
 */
export class Topic extends Latch {
  /** @type {Map<string, Message>} in revision order */
  last = new Map();
  /** Everything retained has arrived on the present connection; false: `last` may be behind. */
  synced = false;
  /** @type {string | undefined} */
  #cursor;
  /** @type {Set<string> | undefined} after a reset: topics that the new snapshot has not shown again */
  #doubtful;
  #bus;
  #request;

  /** @param {Bus} bus @param {number} id @param {string} filter @param {TopicOptions} options */
  constructor(bus, id, filter, { mode, maxRate }) {
    super();
    this.#bus = bus;
    this.#request = { op: 'subscribe', id, filter, mode, max_rate: maxRate };
  }

  /** The subscribe request for a new connection, with the cursor where one is known. */
  request() {
    this.synced = false;
    return { ...this.#request, since: this.#cursor };
  }

  /** @param {any} frame @param {string} epoch @param {string} data the frame's text */
  handle(frame, epoch, data) {
    switch (frame.op) {
      case 'message':
        this.#cursor = `${epoch}:${frame.rev}`;
        const value = decode(frame);
        const raw = 'payload' in frame ? published(frame, data) : value;
        return this.#take({
          topic: frame.topic,
          value,
          raw,
          cleared: frame.cleared === true,
          rev: frame.rev,
          at: frame.at,
          event: frame.event,
          bytes: size(raw),
          epoch,
        });
      case 'synced':
        this.#cursor = frame.cursor;
        // What the hub did not show again after a reset is gone there, so it is cleared here.
        for (const topic of this.#doubtful ?? []) {
          const at = Date.now() - (this.#bus.state.value?.offset_ms ?? 0);
          this.#take({ topic, value: undefined, cleared: true, rev: revision(frame.cursor), at, epoch });
        }
        this.#doubtful = undefined;
        this.synced = true;
        return this.emit('synced');
      case 'reset':
        this.#cursor = undefined;
        this.synced = false;
        this.#doubtful = new Set(this.last.keys());
        return;
      case 'gap':
        return this.emit('gap', frame.missed);
      case 'error':
        return this.emit('error', new BusError(frame.code, frame.message));
    }
  }

  /** @param {Message} message */
  #take(message) {
    const { topic } = message;
    this.#doubtful?.delete(topic);
    this.last.delete(topic);
    if (!message.cleared) this.last.set(topic, message);
    if (this.last.size > MAX_TOPICS) {
      for (const oldest of this.last.keys()) {
        this.last.delete(oldest);
        break;
      }
    }
    this.set(message);
  }

  /** @protected @override @param {Observer<Message>} observer */
  replay(observer) {
    for (const message of [...this.last.values()]) call(observer, 'next', message);
    if (this.synced) call(observer, 'synced', undefined);
  }

  /** Ends the subscription at the hub, for all who share it. @override */
  close() {
    super.close();
    this.#bus.forget(this.#request.id);
  }
}

/** A connection to the hub that keeps itself alive. Made by `connect`. */
export class Bus {
  state = new Latch(/** @type {State} */ ({ phase: 'connecting' }));
  #url;
  #environment;
  /** @type {Map<number, Topic>} */
  #topics = new Map();
  /** @type {Map<string, number>} */
  #shared = new Map();
  /** @type {Map<number, { resolve: (ack: Ack) => void, reject: (error: BusError) => void }>} */
  #inFlight = new Map();
  /** @type {WebSocket | undefined} */
  #socket;
  /** Events carry the number of the attempt that they belong to: those of an abandoned socket are ignored. */
  #attempt = 0;
  #failures = 0;
  #liveSince_ms = 0;
  #heard_ms = 0;
  #nextId = 1;
  /** @type {{ id: number, at_ms: number } | undefined} */
  #ping;
  /** @type {ReturnType<typeof setTimeout> | undefined} one timer, for what the phase waits for */
  #timer;
  #listeners = new AbortController();

  /** @param {string} url @param {{ WebSocket: typeof WebSocket, random: () => number }} environment */
  constructor(url, environment) {
    this.#url = url;
    this.#environment = environment;
    /** @type {(type: string, target: any, listener: () => void) => void} */
    const on = (type, target, listener) =>
      target?.addEventListener?.(type, listener, { signal: this.#listeners.signal });
    on('online', globalThis, () => this.retry());
    // "offline" is a guess of the system: the hub may be on this very machine. Ask the hub.
    on('offline', globalThis, () => this.#probe());
    on('visibilitychange', globalThis.document, () => {
      if (document.visibilityState === 'visible') {
        this.retry();
        this.#probe();
      }
    });
    this.#open();
  }

  /**
   * The messages of a topic or filter. Listens at once; the same filter and options give the same store.
   * @param {string} filter
   * @param {TopicOptions} [options]
   */
  topic(filter, options = {}) {
    const key = JSON.stringify([filter, options.mode, options.maxRate]);
    const known = this.#topics.get(this.#shared.get(key) ?? 0);
    if (known) return known;
    const id = this.#nextId++;
    const topic = new Topic(this, id, filter, options);
    this.#topics.set(id, topic);
    this.#shared.set(key, id);
    if (this.state.value?.phase === 'live') this.#send(topic.request());
    return topic;
  }

  /**
   * Publishes and resolves with the hub's acknowledgement. A string goes out as text, bytes as bytes, anything else
   * as JSON. Rejects with a `BusError`: the hub's code, or `disconnected` when the answer can no longer come: it is then
   * unknown whether the hub took it.
   * @param {string} topic
   * @param {unknown} value
   * @param {{ retain?: boolean }} [options]
   * @returns {Promise<Ack>}
   */
  publish(topic, value, { retain = false } = {}) {
    return new Promise((resolve, reject) => {
      if (this.state.value?.phase !== 'live') return reject(new BusError('disconnected'));
      if (this.#inFlight.size >= MAX_IN_FLIGHT) return reject(new BusError('full', 'too many publishes in flight'));
      const id = this.#nextId++;
      this.#inFlight.set(id, { resolve, reject });
      this.#send({ op: 'publish', id, topic, ...encode(value), retain });
    });
  }

  /** Removes a topic's retained value. @param {string} topic */
  clear(topic) {
    return this.publish(topic, '', { retain: true });
  }

  /** Offline: tries now instead of at `retryAt`. */
  retry() {
    if (this.state.value?.phase === 'offline') this.#open();
  }

  /** Ends the connection and every subscription for good. */
  close() {
    this.#listeners.abort();
    this.#drop();
    this.state.set({ phase: 'closed' });
    for (const topic of [...this.#topics.values()]) topic.close();
    this.state.close();
  }

  /** Called by `Topic.close`. @param {number} id */
  forget(id) {
    if (!this.#topics.delete(id)) return;
    for (const [key, value] of this.#shared) if (value === id) this.#shared.delete(key);
    if (this.state.value?.phase === 'live') this.#send({ op: 'unsubscribe', id });
  }

  #open() {
    this.#drop();
    const attempt = this.#attempt;
    /** @template E @param {(event: E) => void} handle @returns {(event: E) => void} */
    const mine = (handle) => (event) => {
      if (attempt === this.#attempt) handle(event);
    };
    this.state.set({ phase: 'connecting' });
    const socket = new this.#environment.WebSocket(this.#url, PROTOCOL);
    socket.onmessage = mine(({ data }) => this.#receive(data));
    socket.onclose = mine(() => this.#lost());
    this.#socket = socket;
    this.#timer = setTimeout(() => this.#lost(), WELCOME_MS);
  }

  /** Leaves the present socket: whatever it still says belongs to an old attempt. */
  #drop() {
    this.#attempt++;
    clearTimeout(this.#timer);
    this.#socket?.close();
    this.#socket = undefined;
    this.#ping = undefined;
    for (const topic of this.#topics.values()) topic.synced = false;
    const unanswered = [...this.#inFlight.values()];
    this.#inFlight.clear();
    for (const { reject } of unanswered) reject(new BusError('disconnected'));
  }

  #lost() {
    const wasStable = this.#liveSince_ms > 0 && performance.now() - this.#liveSince_ms > STABLE_MS;
    this.#liveSince_ms = 0;
    this.#drop();
    this.#failures = wasStable ? 1 : this.#failures + 1;
    const step_ms = Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** (this.#failures - 1));
    const wait_ms = step_ms * this.#environment.random();
    this.#timer = setTimeout(() => this.#open(), wait_ms);
    this.state.set({ phase: 'offline', retryAt: Date.now() + wait_ms });
  }

  /** @param {unknown} data */
  #receive(data) {
    let frame;
    try {
      frame = JSON.parse(String(data));
    } catch {
      return this.#lost();
    }
    this.#heard_ms = performance.now();
    const state = /** @type {State} */ (this.state.value);
    switch (frame?.op) {
      case 'welcome':
        this.#liveSince_ms = this.#heard_ms;
        const offset_ms = frame.time && Date.now() - frame.time;
        this.state.set({ phase: 'live', epoch: frame.epoch, limits: frame.limits, offset_ms });
        for (const topic of this.#topics.values()) this.#send(topic.request());
        return this.#probe();
      case 'pong':
        if (this.#ping?.id !== frame.id) return;
        const rtt_ms = this.#heard_ms - (this.#ping?.at_ms ?? 0);
        return this.state.set({ ...state, rtt_ms, conflated: frame.conflated ?? 0, skipped: frame.skipped ?? 0 });
      case 'ack':
        this.#inFlight.get(frame.id)?.resolve({ rev: frame.rev, epoch: state.epoch ?? '' });
        this.#inFlight.delete(frame.id);
        return;
      case 'error':
        this.#inFlight.get(frame.id)?.reject(new BusError(frame.code, frame.message));
        this.#inFlight.delete(frame.id);
    }
    this.#topics.get(frame?.id)?.handle(frame, state.epoch ?? '', String(data));
  }

  /** Asks for a sign of life and, while it comes, asks again after each silence. */
  #probe() {
    if (this.state.value?.phase !== 'live') return;
    clearTimeout(this.#timer);
    this.#ping = { id: this.#nextId++, at_ms: performance.now() };
    this.#send({ op: 'ping', id: this.#ping.id });
    this.#timer = setTimeout(() => {
      if (this.#heard_ms < (this.#ping?.at_ms ?? 0)) return this.#lost();
      this.#timer = setTimeout(() => this.#probe(), IDLE_MS);
    }, PONG_MS);
  }

  /** @param {object} frame */
  #send(frame) {
    this.#socket?.send(JSON.stringify(frame));
  }
}

/**
 * Opens the bus. Without a URL: `/ws` of the host that the page came from.
 * @param {string | URL} [url]
 * @param {{ WebSocket?: typeof WebSocket, random?: () => number }} [environment] for tests
 */
export function connect(url = '/ws', environment = {}) {
  const absolute = new URL(url, globalThis.location?.href);
  absolute.protocol = absolute.protocol.replace('http', 'ws');
  return new Bus(absolute.href, { WebSocket: globalThis.WebSocket, random: Math.random, ...environment });
}

/** @param {unknown} value */
function encode(value) {
  if (typeof value === 'string') return { text: value };
  if (!(value instanceof Uint8Array)) return { payload: value };
  let binary = '';
  for (const byte of value) binary += String.fromCharCode(byte);
  return { base64: btoa(binary) };
}

/** @param {any} frame */
function decode(frame) {
  if ('payload' in frame) return frame.payload;
  if ('base64' in frame) return Uint8Array.from(atob(frame.base64), (character) => character.charCodeAt(0));
  return frame.text;
}

/** JSON stands in the frame as it was published; no topic can hold a quote that is not escaped. @param {any} frame @param {string} data */
function published({ payload }, data) {
  const start = data.indexOf('","payload":') + 12;
  const end = data.lastIndexOf(',"rev":');
  return start < 12 || end < start ? JSON.stringify(payload) : data.slice(start, end);
}

/** @param {string | Uint8Array} [raw] */
function size(raw = '') {
  return (typeof raw === 'string' ? new TextEncoder().encode(raw) : raw).length;
}

/** The revision in a cursor `<epoch>:<rev>`. @param {string} cursor */
function revision(cursor) {
  return Number(cursor.slice(cursor.lastIndexOf(':') + 1));
}
