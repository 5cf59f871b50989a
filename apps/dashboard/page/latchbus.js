// @ts-check
/**
 * Latchbus for the browser: one module without dependencies. See `connect`, and README.md for examples.
 *
 * A lost connection is found, opened again and resumed where it was left. After the first one nothing is queued: `publish`
 * rejects, and the caller, who knows what is still worth saying, decides.
 */

/** @import * as shapes from './shapes.js' */
/** @template [V=any] @typedef {shapes.Message<V>} Message */
/** @template T @typedef {shapes.Observer<T>} Observer */
/** @typedef {shapes.State} State */
/** @typedef {shapes.TopicOptions} TopicOptions */
/** @typedef {shapes.Ack} Ack */

const PROTOCOL = 'latchbus.v1.json';
/** Back-off with full jitter: first step and longest. */
const BACKOFF_MS = 500;
const BACKOFF_MAX_MS = 10_000;
/** After a connection of this length the back-off starts over. */
const STABLE_MS = 5_000;
/** From an attempt to the hub's welcome. */
const WELCOME_MS = 10_000;
/** How long a publish waits for the first connection. */
const FIRST_MS = 10_000;
/** From a ping to any sign of life, and to the next ping. */
const PONG_MS = 3_000;
const IDLE_MS = 8_000;
/** The close code of who may not stay. */
const SIGNED_OUT = 3000;
/** Publishes that wait; one more is refused with `full`. */
const MAX_IN_FLIGHT = 1_000;
/** Topics whose last message a store keeps: the last to change. */
const MAX_TOPICS = 50_000;

/** `code` is the hub's, or `disconnected`, `full` (too many in flight here), `closed`. */
export class BusError extends Error {
  /** @param {string} code @param {string} [message] */
  constructor(code, message) {
    super(message ?? code);
    this.code = code;
  }
}

/** A store: keeps its last value and gives it to each new subscriber. For Svelte, RxJS and `for await`. @template T */
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
   * Also where it is passed on by itself: `useSyncExternalStore(store.subscribe, store.snapshot)`.
   * @param {Observer<T> | ((value: T) => void)} observer
   * @returns {(() => void) & { unsubscribe(): void }}
   */
  subscribe = (observer) => {
    const entry = { observer: typeof observer === 'function' ? { next: observer } : observer };
    this.#entries.add(entry);
    this.replay(entry.observer);
    const stop = () => void this.#entries.delete(entry);
    return Object.assign(stop, { unsubscribe: stop });
  };

  /** `value`, frozen with all that it holds: the same until there is a newer one. @returns {T | undefined} */
  snapshot = () => freeze(this.value);

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

/** @template T @param {T} value @returns {T} */
function freeze(value) {
  if (Object.isFrozen(value) || ArrayBuffer.isView(value)) return value;
  for (const inner of Object.values(/** @type {any} */ (value))) freeze(inner);
  return Object.freeze(value);
}

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
 * @template [V=any] what the payloads are
 * @extends {Latch<Message<V>>}
 */
export class Topic extends Latch {
  /** @type {Map<string, Message<V>>} in revision order */
  last = new Map();
  /** @type {readonly Message<V>[] | undefined} */
  #messages;
  /** `last` is up to date. */
  synced = false;
  /** @type {string | undefined} */
  #cursor;
  /** @type {Set<string> | undefined} after a reset: those not shown again yet */
  #doubtful;
  #bus;
  #request;

  /** @param {Bus} bus @param {number} id @param {string} filter @param {TopicOptions} options */
  constructor(bus, id, filter, { mode, maxRate }) {
    super();
    this.#bus = bus;
    this.#request = { op: 'subscribe', id, filter, mode, max_rate: maxRate };
  }

  /** The messages of `last`, frozen: the same array until one of them changes. @returns {readonly Message<V>[]} */
  messages = () => (this.#messages ??= freeze([...this.last.values()]));

  request() {
    this.synced = false;
    return { ...this.#request, since: this.#cursor };
  }

  /** @param {any} frame @param {string} epoch @param {string} data the frame's text */
  handle(frame, epoch, data) {
    switch (frame.op) {
      case 'message':
        this.#cursor = `${epoch}:${frame.rev}`;
        return this.#take(read(frame, epoch, data));
      case 'synced':
        this.#cursor = frame.cursor;
        // It is gone there.
        for (const topic of this.#doubtful ?? []) {
          const at = Date.now() - (this.#bus.state.value?.offset_ms ?? 0);
          this.#take({ topic, value: undefined, cleared: true, rev: Number(frame.cursor.split(':')[1]), at, epoch });
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

  /** @param {any} message */
  #take(message) {
    const { topic } = message;
    this.#messages = undefined;
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

  /** @protected @override @param {Observer<Message<V>>} observer */
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

/** Made by `connect`. */
export class Bus {
  state = new Latch(/** @type {State} */ ({ phase: 'connecting' }));
  #url;
  #environment;
  /** @type {Map<number, Topic>} */
  #topics = new Map();
  /** @type {Map<string, number>} */
  #shared = new Map();
  /** With `send`, those that wait for the first connection. @type {Map<number, shapes.Publish>} */
  #inFlight = new Map();
  /** Of the hub. Undefined until the first connection. @type {Record<string, number> | undefined} */
  #limits;
  /** Resolves with the first connection, rejects if the bus is closed before. @type {Promise<State>} */
  ready = new Promise((resolve, reject) => {
    const next = (/** @type {State} */ state) => void (state.phase === 'live' && resolve(state));
    this.state.subscribe({ next, complete: () => reject(new BusError('closed')) });
  });
  /** @type {WebSocket | undefined} */
  #socket;
  /** Events of earlier sockets are ignored. */
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

  /** @param {string} url @param {shapes.Environment} environment */
  constructor(url, environment) {
    this.#url = url;
    this.#environment = environment;
    /** @type {(type: string, target: any, listener: () => void) => void} */
    const on = (type, target, listener) =>
      target?.addEventListener?.(type, listener, { signal: this.#listeners.signal });
    this.ready.catch(() => {});
    on('online', globalThis, () => this.retry());
    // A guess of the system: ask the hub.
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
   * Listens at once; the same filter and options give the same store.
   * @template [V=any] what the payloads are, as in `topic<ClickValues>(…)`: it is not checked
   * @param {string} filter
   * @param {TopicOptions} [options]
   * @returns {Topic<V>}
   */
  topic = (filter, options = {}) => {
    const key = JSON.stringify([filter, options.mode, options.maxRate]);
    const known = this.#topics.get(this.#shared.get(key) ?? 0);
    if (known) return known;
    const id = this.#nextId++;
    const topic = new Topic(this, id, filter, options);
    this.#topics.set(id, topic);
    this.#shared.set(key, id);
    if (this.state.value?.phase === 'live') this.#subscribe(topic);
    return topic;
  };

  /**
   * Publishes a string as text, bytes as bytes, anything else as JSON. Resolves when the hub has acknowledged it. Waits for
   * the first connection, 10 s at most. Rejects with a `BusError`; after `disconnected` it is unknown whether the hub took it.
   * @param {string} topic
   * @param {unknown} value
   * @param {{ retain?: boolean }} [options]
   * @returns {Promise<Ack>}
   */
  publish = (topic, value, { retain = false } = {}) =>
    this.#ask(topic, () => {
      const { json, bytes } = encode(value);
      return { body: `"op":"publish",${json},"retain":${retain}`, bytes };
    });

  /**
   * What a topic retains, page by page, backwards: the last `limit` messages (50), or those before revision `before`. Waits and
   * rejects as `publish` does.
   * @template [V=any] what the payloads are
   * @param {string} topic
   * @param {{ before?: number | undefined, limit?: number | undefined }} [options]
   * @returns {Promise<shapes.Page<V>>} the oldest message first
   */
  history = (topic, { before, limit } = {}) =>
    this.#ask(topic, () => ({ body: JSON.stringify({ op: 'history', before, limit }).slice(1, -1), bytes: 0 }));

  /** @param {string} topic @param {() => { body: string, bytes: number }} make @returns {Promise<any>} */
  #ask(topic, make) {
    return new Promise((resolve, reject) => {
      const phase = this.state.value?.phase;
      const isEarly = !this.#limits && phase !== 'closed';
      if (phase !== 'live' && !isEarly) throw new BusError(phase === 'closed' ? phase : 'disconnected');
      if (this.#inFlight.size >= MAX_IN_FLIGHT) throw new BusError('full', 'too many publishes in flight');
      const id = this.#nextId++;
      const { body, bytes } = make();
      const send = () => {
        clearTimeout(timer);
        const error =
          above('invalid_topic', 'topic', size(topic), this.#limits?.topic_bytes) ??
          above('too_large', 'payload', bytes, this.#limits?.payload_bytes);
        this.#inFlight.set(id, { resolve, reject });
        if (error) this.#answered(id, error);
        else this.#socket?.send(`{"id":${id},"topic":${JSON.stringify(topic)},${body}}`);
      };
      const timer = isEarly ? setTimeout(() => this.#answered(id, new BusError('disconnected')), FIRST_MS) : undefined;
      if (isEarly) this.#inFlight.set(id, { resolve, reject, send, timer });
      else send();
    });
  }

  /** Who has signed in here, as the hub knows them. @returns {string | undefined} */
  get user() {
    return this.state.value?.user;
  }

  /** Removes a topic's retained value. @param {string} topic */
  clear = (topic) => this.publish(topic, '', { retain: true });

  /** Offline: tries now instead of at `retryAt`. */
  retry = () => {
    if (this.state.value?.phase === 'offline') this.#open();
  };

  /** Ends every subscription for good. */
  close() {
    this.#listeners.abort();
    this.#drop();
    this.state.set({ phase: 'closed' });
    for (const id of [...this.#inFlight.keys()]) this.#answered(id, new BusError('closed'));
    for (const topic of [...this.#topics.values()]) topic.close();
    this.state.close();
  }

  /** For `Topic`. @param {number} id */
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
    socket.onclose = mine((event) => this.#lost(event?.code === SIGNED_OUT, event));
    socket.onerror = () => {}; // else `ws` throws
    this.#socket = socket;
    this.#timer = setTimeout(() => this.#lost(), WELCOME_MS);
  }

  /** Leaves the present socket. */
  #drop() {
    this.#attempt++;
    clearTimeout(this.#timer);
    this.#socket?.close();
    this.#socket = undefined;
    this.#ping = undefined;
    for (const topic of this.#topics.values()) topic.synced = false;
    for (const [id, { send }] of [...this.#inFlight]) if (!send) this.#answered(id, new BusError('disconnected'));
  }

  /** @param {number} id @param {Ack | BusError} answer */
  #answered(id, answer) {
    const publish = this.#inFlight.get(id);
    clearTimeout(publish?.timer);
    this.#inFlight.delete(id);
    if (answer instanceof BusError) publish?.reject(answer);
    else publish?.resolve(answer);
  }

  /** @param {boolean} [signedOut] @param {any} [end] */
  #lost(signedOut = false, { cause, final } = {}) {
    const wasStable = this.#liveSince_ms > 0 && performance.now() - this.#liveSince_ms > STABLE_MS;
    this.#liveSince_ms = 0;
    this.#drop();
    if (!this.#limits && !this.#failures) void this.#explain();
    this.#failures = wasStable ? 1 : this.#failures + 1;
    const step_ms = Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** (this.#failures - 1));
    const wait_ms = final ? Infinity : step_ms * this.#environment.random();
    if (!final) this.#timer = setTimeout(() => this.#open(), wait_ms);
    this.state.set({ phase: 'offline', retryAt: Date.now() + wait_ms, signedOut, cause });
  }

  /** A hub of another origin does not take everyone: the console says what is missing. */
  async #explain() {
    const { host } = globalThis.location ?? {};
    const url = new URL('api/v1/origin', this.#url.replace('ws', 'http'));
    if (!host || host === url.host) return;
    const { message } = await fetch(url).then((response) => response.json()).catch(() => ({}));
    if (message) console.error(`latchbus: ${message}`);
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
        if (frame.guest) return this.#lost(true);
        this.#liveSince_ms = this.#heard_ms;
        const offset_ms = frame.time && Date.now() - frame.time;
        this.#limits = frame.limits ?? {};
        for (const topic of this.#topics.values()) this.#subscribe(topic);
        for (const { send } of [...this.#inFlight.values()]) send?.();
        this.state.set({ phase: 'live', epoch: frame.epoch, limits: frame.limits, offset_ms, user: frame.user });
        return this.#probe();
      case 'pong':
        if (this.#ping?.id !== frame.id) return;
        const rtt_ms = this.#heard_ms - (this.#ping?.at_ms ?? 0);
        return this.state.set({ ...state, rtt_ms, conflated: frame.conflated ?? 0, skipped: frame.skipped ?? 0 });
      case 'ack':
        return this.#answered(frame.id, { rev: frame.rev, epoch: state.epoch ?? '' });
      case 'history':
        const messages = frame.messages.map((/** @type {any} */ message) => read(message, state.epoch ?? ''));
        return this.#answered(frame.id, /** @type {any} */ ({ messages, more: frame.more }));
      case 'error':
        this.#answered(frame.id, new BusError(frame.code, frame.message));
    }
    this.#topics.get(frame?.id)?.handle(frame, state.epoch ?? '', String(data));
  }

  /** @param {Topic} topic */
  #subscribe(topic) {
    const request = topic.request();
    const error = above('invalid_filter', 'filter', size(request.filter), this.#limits?.topic_bytes);
    // Whoever has just asked for the topic has yet to listen to its errors.
    if (error) queueMicrotask(() => topic.handle({ op: 'error', ...error, message: error.message }, '', ''));
    else this.#send(request);
  }

  /** Asks for signs of life. */
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
 * @param {Partial<shapes.Environment>} [environment]
 */
export function connect(url = '/ws', environment = {}) {
  const absolute = new URL(url, globalThis.location?.href);
  absolute.protocol = absolute.protocol.replace('http', 'ws');
  return new Bus(absolute.href, { WebSocket: globalThis.WebSocket, random: Math.random, ...environment });
}

/** @param {string} code @param {string} what @param {number} bytes @param {number} [limit] */
function above(code, what, bytes, limit = Infinity) {
  return bytes > limit ? new BusError(code, `${what} of ${bytes} bytes is above the limit of ${limit}`) : undefined;
}

/** A payload as it stands in a frame, and its size. @param {unknown} value */
function encode(value) {
  if (typeof value === 'string') {
    const json = JSON.stringify(value);
    const bytes = size(value);
    // With many escapes base64 is shorter, and a hub takes no frame much longer than its payload.
    if (size(json) < 64 + 1.4 * bytes) return { json: `"text":${json}`, bytes };
    value = new TextEncoder().encode(value);
  }
  if (value instanceof Uint8Array) {
    let binary = '';
    for (const byte of value) binary += String.fromCharCode(byte);
    return { json: `"base64":"${btoa(binary)}"`, bytes: value.length };
  }
  let json;
  try {
    json = JSON.stringify(value);
  } catch {}
  if (json === undefined) throw new BusError('bad_message', 'no value of JSON');
  return { json: `"payload":${json}`, bytes: size(json) };
}

/** A message. Without the text of its frame it is not known how its JSON was written. @param {any} frame @param {string} epoch @param {string} [data] */
function read(frame, epoch, data) {
  const { topic, rev, at, event, cleared = false } = frame;
  const value = decode(frame);
  const raw = 'payload' in frame ? data && published(frame, data) : value;
  return { topic, value, raw, cleared, rev, at, event, bytes: raw === undefined && !cleared ? undefined : size(raw), epoch };
}

/** @param {any} frame */
function decode(frame) {
  if ('payload' in frame) return frame.payload;
  if ('base64' in frame) return Uint8Array.from(atob(frame.base64), (character) => character.charCodeAt(0));
  return frame.text;
}

/** JSON stands in the frame as it was published. @param {any} frame @param {string} data */
function published({ payload }, data) {
  const start = data.indexOf('","payload":') + 12;
  const end = data.lastIndexOf(',"rev":');
  return start < 12 ? JSON.stringify(payload) : data.slice(start, end);
}

/** @param {string | Uint8Array} [raw] */
function size(raw = '') {
  return (typeof raw === 'string' ? new TextEncoder().encode(raw) : raw).length;
}
