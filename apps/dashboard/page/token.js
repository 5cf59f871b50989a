// @ts-check
/**
 * Signs in with tokens, where a browser can send no header: one with each connection, and the next before that ends. See `withToken`,
 * and README.md for an example.
 */

/** @typedef {import('./shapes.js').Environment} Environment */

/** The next token is asked for when so much of the time of this one is over, but not at once. */
const RENEW_AT = 0.8;
const RENEW_MIN_MS = 1_000;
const TIMER_MAX_MS = 2 ** 31 - 1;
/** The id of the frame `auth`: none of the bus's. */
const AUTH_ID = Number.MAX_SAFE_INTEGER;
const SIGNED_OUT = 3000;
/** The frames that are not all for the bus; how they begin tells, so that no message is read twice. */
const OURS = /^\{"op":"(?:welcome|authenticated|error)"/;

/**
 * For `connect(url, withToken(…))`. A token that the hub refuses is not tried again: the state says why (`cause`), and `bus.retry()`
 * asks for another. When `token` fails, it is asked again with the next attempt.
 * @param {() => string | Promise<string>} token gives a token that is valid now
 * @param {Partial<Environment>} [environment]
 * @returns {Pick<Environment, 'WebSocket'>}
 */
export function withToken(token, { WebSocket = globalThis.WebSocket } = {}) {
  const Socket = function (/** @type {string} */ url, /** @type {string} */ protocol) {
    return new TokenSocket(new WebSocket(url, protocol), token);
  };
  return { WebSocket: /** @type {any} */ (Socket) };
}

/** @typedef {{ sub?: string, exp?: number }} Claims */

/** A WebSocket that signs in before anybody else gets to it. */
class TokenSocket {
  /** @type {((event: { data: unknown }) => void) | undefined} */
  onmessage;
  /** @type {((event: object) => void) | undefined} */
  onclose;
  #socket;
  #token;
  /** Held back until the hub knows who this is. @type {any} */
  #welcome;
  /** What the token says of itself that the hub has accepted, and the one that it was sent. @type {Claims} */
  #claims = {};
  /** @type {Claims} */
  #sent = {};
  /** This clock minus the hub's. */
  #offset_ms = 0;
  #isClosed = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #renewal;

  /** @param {WebSocket} socket @param {() => string | Promise<string>} token */
  constructor(socket, token) {
    this.#socket = socket;
    this.#token = token;
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = (event) => this.#end(event);
    socket.onerror = () => {}; // else `ws` throws
  }

  /** @param {string} data */
  send(data) {
    this.#socket.send(data);
  }

  close() {
    this.#isClosed = true;
    clearTimeout(this.#renewal);
    this.#socket.close();
  }

  /** @param {unknown} data */
  #receive(data) {
    const text = String(data);
    const frame = OURS.test(text) ? JSON.parse(text) : {};
    if (frame.op === 'welcome') {
      this.#welcome = frame;
      if (frame.time) this.#offset_ms = Date.now() - frame.time;
      return void this.#signIn();
    }
    if (frame.id !== AUTH_ID) return this.onmessage?.({ data });
    // The token before lasts as long as it does; without one it is over.
    if (frame.op === 'error' && this.#welcome) return this.#end({ code: SIGNED_OUT, cause: frame.message, final: true });
    if (frame.op === 'authenticated') this.#claims = this.#sent;
    this.#renewLater();
    if (!this.#welcome) return;
    const { guest, ...welcome } = this.#welcome;
    this.#welcome = undefined;
    this.onmessage?.({ data: JSON.stringify({ ...welcome, user: this.#claims.sub ?? welcome.user }) });
  }

  /** Sends a token: the first, or the next. */
  async #signIn() {
    try {
      const token = await this.#token();
      if (this.#isClosed) return;
      this.#sent = claimsOf(token);
      this.send(JSON.stringify({ op: 'auth', id: AUTH_ID, token }));
    } catch (error) {
      if (this.#isClosed) return;
      if (this.#welcome) this.#end({ cause: error instanceof Error ? error.message : String(error) });
      else this.#renewLater();
    }
  }

  #renewLater() {
    const left_ms = (this.#claims.exp ?? Infinity) * 1_000 - (Date.now() - this.#offset_ms);
    const wait_ms = Math.min(TIMER_MAX_MS, Math.max(RENEW_MIN_MS, left_ms * RENEW_AT));
    // When it is over the hub says so.
    if (left_ms > 0) this.#renewal = setTimeout(() => this.#signIn(), wait_ms);
  }

  /** @param {object} event */
  #end(event) {
    if (this.#isClosed) return;
    this.close();
    this.onclose?.(event);
  }
}

/** What is written in a JWT; of another token nothing is known. @param {string} token @returns {Claims} */
function claimsOf(token) {
  try {
    const base64 = token.split('.')[1]?.replaceAll('-', '+').replaceAll('_', '/') ?? '';
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return {};
  }
}
