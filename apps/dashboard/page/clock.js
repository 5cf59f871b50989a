// @ts-check
/** The hub's clock as it is seen from here: ages must be right where the two clocks are not set alike. */
export class HubClock {
  /** Ours minus the hub's and the time on the way. The smallest one seen was the least time on the way. */
  #offset_ms = Infinity;
  #wasLive = false;

  /** A state of the connection. @param {import('./latchbus.js').State} state */
  observe({ phase, offset_ms = Infinity }) {
    const isLive = phase === 'live';
    // A new connection: either clock may have been set meanwhile.
    if (isLive && !this.#wasLive) this.#offset_ms = offset_ms;
    this.#wasLive = isLive;
  }

  /** A live message that was published at `at`. @param {number} at Unix milliseconds */
  hear(at) {
    this.#offset_ms = Math.min(this.#offset_ms, Date.now() - at);
  }

  /** Milliseconds since `at`. Until the hub has said its time, both clocks are taken to agree. @param {number} at */
  age_ms(at) {
    const offset_ms = Number.isFinite(this.#offset_ms) ? this.#offset_ms : 0;
    return Math.max(0, Date.now() - at - offset_ms);
  }
}
