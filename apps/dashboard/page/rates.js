// @ts-check
/** The room's rates of the last minutes, as this page has seen them. What it has not seen is a gap, not a line. */

import { COLORS, some, zero } from './count.js';

/** @typedef {import('./count.js').Count} Count */
/** @typedef {Count & { at: number, isGap: boolean }} Rate `at`: Unix milliseconds, by our clock */

export const WINDOW_MS = 5 * 60_000;
/** The hub says one a second at most; the rest is for gaps. */
const MAX_POINTS = 400;

export class Rates {
  /** Oldest first. @type {Rate[]} */
  points = [];

  /** From now on. @param {Count} rate */
  push(rate) {
    this.#add({ ...rate, at: Date.now(), isGap: false });
  }

  /** From now on nothing is known. */
  gap() {
    if (this.points.length > 0 && !this.points.at(-1)?.isGap) {
      this.#add({ ...zero(), at: Date.now(), isGap: true });
    }
  }

  /** Nothing but zeroes in sight. */
  get isFlat() {
    return !this.points.some(some);
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
      const isPoint = (/** @type {any} */ point) =>
        Number.isFinite(point.at) && point.at > start && COLORS.every((color) => Number.isFinite(point[color]));
      this.points = points.filter(isPoint).slice(-MAX_POINTS);
    } catch {
      this.points = [];
    }
  }
}
