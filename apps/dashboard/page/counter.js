// @ts-check
/**
 * Clicks in a room, counted exactly: none is lost or doubled by a cut, a reload, a restart of the hub.
 *
 *     import { connect } from 'latchbus';
 *     import { counter } from 'latchbus/counter';
 *     const clicks = counter('main', connect('ws://127.0.0.1:3000/ws'));
 *     clicks.subscribe(({ red, blue, pending }) => console.log(red, blue, pending.red + pending.blue));
 *     clicks.click('red');
 */
import { Latch, connect } from './latchbus.js';
import { Room, isRoomName } from './room.js';

/** @typedef {import('./count.js').Count} Count */
/** @typedef {import('./latchbus.js').Bus} Bus */
/**
 * @typedef {object} Score
 * @property {number} red all clicks of the room, this page's own among them from the moment of the click
 * @property {number} blue
 * @property {Count} pending own clicks that the hub has not confirmed; they are kept over reloads and sent again
 * @property {boolean} isKnown the hub has spoken at least once; false: the numbers hold own clicks alone
 * @property {boolean} isLive the numbers are up to date; false: they are the last known ones
 */

/** The score of a room as a store. Made by `counter`. @extends {Latch<Score>} */
export class ClickCounter extends Latch {
  #room;
  #onEnd;
  #listeners = new AbortController();

  /** @param {Bus} bus @param {string} name @param {() => void} onEnd */
  constructor(bus, name, onEnd) {
    super();
    this.#onEnd = onEnd;
    let isDue = false;
    this.#room = new Room(bus, name, () => {
      if (isDue) return;
      isDue = true;
      // One value for all that changes together.
      queueMicrotask(() => {
        isDue = false;
        this.set(this.#score());
      });
    });
    this.set(this.#score());
    const { signal } = this.#listeners;
    globalThis.addEventListener?.('pagehide', () => this.#room.counter.suspend(), { signal });
    /** @param {any} event */
    const onShow = ({ persisted }) => persisted && this.#room.counter.resume();
    globalThis.addEventListener?.('pageshow', onShow, { signal });
  }

  /** Counts a click: kept in the browser, shown to subscribers, then sent. @param {keyof Count} color */
  click = (color) => this.#room.counter.click(color);

  /** Ends the store. Clicks that are not confirmed are sent by the next counter of this browser for the room. @override */
  close() {
    this.#listeners.abort();
    this.#room.close();
    this.#onEnd();
    super.close();
  }

  /** @returns {Score} */
  #score() {
    const { values, isKnown, isLive, counter } = this.#room;
    return { ...values, pending: counter.pending, isKnown, isLive };
  }
}

/** @type {WeakMap<Bus, Map<string, ClickCounter>>} */
const counters = new WeakMap();

/**
 * The clicks of a room. The same room on the same bus gives the same store.
 * @param {string} [room]
 * @param {Bus} [bus] a connection of its own to the page's host unless one is given
 * @throws {RangeError} the name can't be a room
 */
export function counter(room = 'main', bus = connect()) {
  if (!isRoomName(room)) throw new RangeError(`not the name of a room: ${room}`);
  const ofBus = counters.get(bus) ?? new Map();
  counters.set(bus, ofBus);
  /** @type {ClickCounter} */
  const made = ofBus.get(room) ?? new ClickCounter(bus, room, () => ofBus.delete(room));
  ofBus.set(room, made);
  return made;
}
