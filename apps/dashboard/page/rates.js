// @ts-check
/** The room's rates of the last minutes, as this page has seen them. What it has not seen is a gap, not a line. */

/** @typedef {{ at: number, red: number, blue: number, isGap: boolean }} Rate `at`: Unix milliseconds, by our clock */

export const WINDOW_MS = 5 * 60_000;
/** The hub says one a second at most; the rest is for gaps. */
const MAX_POINTS = 400;

export class Rates {
  /** Oldest first. @type {Rate[]} */
  points = [];

  /** From now on. @param {{ red: number, blue: number }} rate */
  push({ red, blue }) {
    this.#add({ at: Date.now(), red, blue, isGap: false });
  }

  /** From now on nothing is known. */
  gap() {
    if (this.points.length > 0 && !this.points.at(-1)?.isGap) {
      this.#add({ at: Date.now(), red: 0, blue: 0, isGap: true });
    }
  }

  /** Nothing but zeroes in sight. */
  get isFlat() {
    return this.points.every(({ red, blue }) => red === 0 && blue === 0);
  }

  /** @param {Rate} point */
  #add(point) {
    this.points.push(point);
    const start = point.at - WINDOW_MS;
    // The last one before the window still holds at its start.
    while (this.points.length > MAX_POINTS || (this.points[1]?.at ?? Infinity) < start) this.points.shift();
  }

  /** Keeps them for the tab's next visit to this room. @param {string} room */
  save(room) {
    this.gap();
    try {
      sessionStorage.setItem(`latchbus/rates/${room}`, JSON.stringify(this.points));
    } catch {
      // Forbidden or full: the next visit starts with an empty chart.
    }
  }

  /** @param {string} room */
  load(room) {
    try {
      const points = JSON.parse(sessionStorage.getItem(`latchbus/rates/${room}`) ?? '[]');
      const start = Date.now() - WINDOW_MS;
      const isPoint = (/** @type {any} */ { at, red, blue }) => [at, red, blue].every(Number.isFinite) && at > start;
      this.points = points.filter(isPoint).slice(-MAX_POINTS);
    } catch {
      this.points = [];
    }
  }
}
