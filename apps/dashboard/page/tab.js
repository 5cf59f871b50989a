// @ts-check
/** What a counter needs of the browser: storage, randomness, the time, and names that one tab at a time can hold. */

/** @typedef {Pick<Storage, 'getItem' | 'setItem' | 'removeItem' | 'key' | 'length'>} Store */
/** @typedef {{ readonly held: boolean, release: () => void }} Hold */

/** Without Web Locks a hold is a lease: it runs out if its tab dies, and outlasts the throttling of a hidden one. */
const LEASE_MS = 300_000;
const LEASE_RENEW_MS = 20_000;
/** Until tabs in other processes see what was written. */
const LEASE_SETTLE_MS = 50;

/** What the counter needs of a browser; tests bring their own. */
export class Environment {
  /** @type {Store} */ local = storage('localStorage');
  /** @type {Store} */ session = storage('sessionStorage');
  random32 = () => crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
  now = () => Date.now();
  /** The page was here before, in this tab, a moment ago. */
  isReload = isReload();

  /**
   * Holds a name that one tab at a time can hold. Null: somebody else has it, and still had it `wait_ms` later.
   * @param {string} name @param {number} wait_ms
   * @returns {Promise<Hold | null>}
   */
  hold(name, wait_ms) {
    const locks = globalThis.navigator?.locks;
    // Web Locks need a secure context; a phone that opens http://192.168.… has none.
    if (!locks) return this.#lease(name, wait_ms);
    return new Promise((resolve) => {
      const options = wait_ms > 0 ? { signal: AbortSignal.timeout(wait_ms) } : { ifAvailable: true };
      /** @param {Lock | null} lock */
      const granted = (lock) => {
        const { hold, released } = lock ? makeHold() : { hold: null, released: undefined };
        resolve(hold);
        return released;
      };
      locks.request(name, options, granted).catch(() => resolve(null));
    });
  }

  /** Holds a name that nobody else can know yet, at once. @param {string} name @returns {Hold} */
  holdFresh(name) {
    const locks = globalThis.navigator?.locks;
    if (!locks) return this.#leased(name);
    const { hold, released } = makeHold();
    void locks.request(name, () => released);
    return hold;
  }

  /** @param {string} name @param {number} wait_ms */
  async #lease(name, wait_ms) {
    const until = () => Number(this.local.getItem(`${name}/lease`)?.split(' ')[1] ?? 0);
    for (let waited_ms = 0; until() > this.now(); waited_ms += LEASE_SETTLE_MS) {
      if (waited_ms >= wait_ms) return null;
      await new Promise((resolve) => setTimeout(resolve, LEASE_SETTLE_MS));
    }
    const hold = this.#leased(name);
    // The last one to write wins.
    await new Promise((resolve) => setTimeout(resolve, LEASE_SETTLE_MS));
    if (hold.held) return hold;
    hold.release();
    return null;
  }

  /** @param {string} name */
  #leased(name) {
    const { local, now } = this;
    const key = `${name}/lease`;
    const token = hex(this.random32());
    const isMine = () => local.getItem(key)?.startsWith(`${token} `) ?? false;
    const renew = () => local.setItem(key, `${token} ${now() + LEASE_MS}`);
    renew();
    const timer = setInterval(() => isMine() && renew(), LEASE_RENEW_MS);
    return {
      get held() {
        return isMine();
      },
      release() {
        clearInterval(timer);
        if (isMine()) local.removeItem(key);
      },
    };
  }
}

function makeHold() {
  let resolve = () => {};
  const released = new Promise((done) => (resolve = () => done(undefined)));
  const hold = {
    held: true,
    release() {
      hold.held = false;
      resolve();
    },
  };
  return { hold, released };
}

function isReload() {
  const [navigation] = globalThis.performance?.getEntriesByType?.('navigation') ?? [];
  return /** @type {PerformanceNavigationTiming | undefined} */ (navigation)?.type === 'reload';
}

/** @param {number} n */
export function hex(n) {
  return n.toString(16).padStart(8, '0');
}

/**
 * A storage that may be forbidden or full: what it does not take lives as long as the page.
 * @param {'localStorage' | 'sessionStorage'} kind
 * @returns {Store}
 */
function storage(kind) {
  /** @type {Map<string, string>} */
  const memory = new Map();
  const real = (() => {
    try {
      return globalThis[kind];
    } catch {
      return undefined;
    }
  })();
  return {
    get length() {
      return real?.length ?? memory.size;
    },
    key: (i) => (real ? real.key(i) : ([...memory.keys()][i] ?? null)),
    getItem: (key) => memory.get(key) ?? real?.getItem(key) ?? null,
    setItem(key, value) {
      try {
        memory.set(key, value);
        real?.setItem(key, value);
        if (real) memory.delete(key);
      } catch {
        // Full: `memory` has it.
      }
    },
    removeItem(key) {
      memory.delete(key);
      real?.removeItem(key);
    },
  };
}
