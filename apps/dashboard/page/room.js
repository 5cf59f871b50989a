// @ts-check
/** One room as it is shown: the hub's values with this tab's own clicks, and the devices behind them. */
import { Counter } from './clicks.js';
import { HubClock } from './clock.js';
import { COLORS, minus, plus, readCount, zero } from './count.js';
import { Rates } from './rates.js';

/** @typedef {import('./count.js').Count} Count */
/** @typedef {import('./latchbus.js').Message} Message */
/**
 * @typedef {object} Device
 * @property {string} name
 * @property {'online' | 'offline' | undefined} presence undefined: it does not say
 * @property {Count} count
 * @property {number} changedAt of its count or presence, Unix milliseconds by the hub's clock
 * @property {Trouble | undefined} trouble
 */
/**
 * What of a device's the hub could not read, since the hub's start.
 * @typedef {object} Trouble
 * @property {number} malformed how many reports and presses
 * @property {number} at when the last one came, Unix milliseconds by the hub's clock
 * @property {string} reason what was wrong with that one
 */
/**
 * What the hub said of a device. Its count is base + pressed + what every live incarnation above the floor has beyond its zero.
 * @typedef {object} Parts
 * @property {Device['presence']} presence
 * @property {number} floor
 * @property {Count} base
 * @property {Count} pressed
 * @property {Map<string, Count>} live by `<boot>-<nonce>`
 * @property {Set<string>} cleared those whose topic is gone: folded, which the floor says, or removed
 * @property {Map<string, Count>} zeros from which count they count since a reset
 * @property {boolean} removed not listed until it has a click
 * @property {number} changedAt
 * @property {Trouble | undefined} trouble
 */

const ROOM = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
/** Frames a second and topic: more than the eye follows, less than a busy room makes. */
const MAX_RATE = 20;

/** @param {string} name */
export function isRoomName(name) {
  return ROOM.test(name);
}

export class Room {
  /** False until the hub has spoken once: nothing is known, which is not the same as no clicks. */
  isKnown = false;
  /** @type {Count | undefined} clicks a second */
  rate;
  rates = new Rates();
  clock = new HubClock();
  /** This tab's clicks. @type {Counter} */
  counter;
  /** @type {Count} */
  #values = zero();
  /** As many as the hub admits to a room. @type {Map<string, Parts>} */
  #devices = new Map();
  /** Those of them that an administrator has removed, and that have reported since. @type {Set<string>} */
  #removed = new Set();
  /** Their names in the order of the table. @type {string[] | undefined} */
  #names;
  #bus;
  #messages;
  #prefix;
  #changed;
  #stops;

  /**
   * @param {import('./latchbus.js').Bus} bus
   * @param {string} name
   * @param {() => void} changed called after every change
   * @param {import('./tab.js').Environment} [environment] for tests
   */
  constructor(bus, name, changed, environment) {
    this.#prefix = `clicks/${name}/`;
    this.#changed = changed;
    this.#bus = bus;
    // Each press is an event as well; nothing here is to wait behind thousands of them.
    const messages = bus.topic(`${this.#prefix}#`, { mode: 'state', maxRate: MAX_RATE });
    this.#messages = messages;
    this.counter = new Counter(bus, name, messages, changed, environment);
    this.#stops = [
      bus.state.subscribe((state) => {
        this.clock.observe(state);
        if (state.phase !== 'live') this.rates.gap();
        changed();
      }),
      messages.subscribe({
        next: (message) => {
          // A snapshot is taken over whole when it is complete, so that nothing half-known is ever shown.
          if (!messages.synced) return this.counter.observeCleared(message);
          this.clock.hear(message.at);
          this.counter.observe(message);
          this.#observe(message);
          changed();
        },
        synced: () => this.#takeOver(messages.last, bus.state.value?.epoch ?? ''),
      }),
    ];
  }

  /** Says goodbye to the hub. Clicks that it has not confirmed are kept for the next visit. */
  close() {
    this.counter.close();
    for (const stop of this.#stops) stop();
    this.#messages.close();
  }

  /** All that is retained has arrived on the present connection; false: what is shown is the last known state. */
  get isLive() {
    return this.#bus.state.value?.phase === 'live' && this.#messages.synced;
  }

  /** The score: what the hub says and what it can't know yet. */
  get values() {
    return plus(this.#values, this.counter.beyond);
  }

  get deviceCount() {
    let hidden = 0;
    for (const name of this.#removed) if (this.#isHidden(name)) hidden++;
    return this.#devices.size - hidden;
  }

  /** Reports of this room's devices that the hub could not read, since its start. */
  get malformed() {
    let sum = 0;
    for (const { trouble } of this.#devices.values()) sum += trouble?.malformed ?? 0;
    return sum;
  }

  /** The first devices by name, this browser before all others. @param {number} limit @returns {Device[]} */
  devices(limit) {
    const own = this.counter.device;
    this.#names ??= [...this.#devices.keys()].sort(
      (a, b) => Number(b === own) - Number(a === own) || order.compare(a, b) || (a < b ? -1 : 1),
    );
    /** @type {Device[]} */
    const devices = [];
    for (const name of this.#names) {
      if (devices.length >= limit) break;
      const parts = this.#devices.get(name);
      if (!parts || this.#isHidden(name)) continue;
      const { presence, changedAt, trouble } = parts;
      devices.push({ name, presence, count: countOf(parts), changedAt, trouble });
    }
    return devices;
  }

  /** Removed, and without a click since. @param {string} name */
  #isHidden(name) {
    const parts = this.#devices.get(name);
    return !!parts?.removed && total(countOf(parts)) === 0;
  }

  /** @param {Map<string, Message>} last @param {string} epoch */
  #takeOver(last, epoch) {
    this.#devices.clear();
    this.#removed.clear();
    this.#names = undefined;
    this.#values = zero();
    this.rate = undefined;
    for (const message of last.values()) this.#observe(message);
    // A room without clicks has no rate yet, and that is a known one.
    this.rates.push(this.rate ?? zero());
    this.isKnown = true;
    this.counter.synced(last.get(`${this.#prefix}values`), epoch);
    this.#changed();
  }

  /** @param {Message} message */
  #observe({ topic, value, cleared, at }) {
    const [first = '', second, third] = topic.slice(this.#prefix.length).split('/');
    if (second === undefined) {
      const pair = readNumbers(value);
      if (first === 'values') this.#values = readCount(value) ?? this.#values;
      if (first === 'rate' && pair) {
        this.rate = pair;
        if (this.isLive) this.rates.push(pair);
      }
      // Behind all that an operation has cleared.
      if (first === 'reset') this.#forgetRemoved();
      return;
    }
    if (!['count', 'floor', 'pressed', 'status', 'trouble', 'zero'].includes(second)) return;
    // What was removed is cleared; that makes no device.
    if (cleared && !this.#devices.has(first)) return;
    const device = this.#device(first);
    // A fold is the hub's own business, and what it could not read changed nothing.
    if (!cleared && !['floor', 'trouble', 'zero'].includes(second)) device.changedAt = Math.max(device.changedAt, at);
    switch (second) {
      case 'count': {
        const count = readCount(value);
        // A cleared count is no information, not zero: it is taken away when it was folded, and the floor says so.
        if (third && cleared) device.cleared.add(third);
        if (!count || !third) return;
        device.cleared.delete(third);
        device.live.set(third, count);
        return;
      }
      case 'floor': {
        const count = readCount(value);
        if (cleared) device.base = zero();
        if (!count || !Number.isSafeInteger(value.floor)) return;
        device.floor = value.floor;
        device.base = count;
        for (const name of device.live.keys()) if (!isAbove(name, device.floor)) device.live.delete(name);
        return;
      }
      case 'pressed':
        device.pressed = cleared ? zero() : (readCount(value) ?? device.pressed);
        return;
      case 'status':
        device.presence = !cleared && (value === 'online' || value === 'offline') ? value : undefined;
        return;
      case 'zero':
        device.zeros = readZeros(value);
        device.removed = value?.removed === true;
        if (device.removed) this.#removed.add(first);
        else this.#removed.delete(first);
        return;
      case 'trouble':
        device.trouble = readTrouble(value);
    }
  }

  /** A count that is cleared stays, unless it was an administrator who has cleared it. */
  #forgetRemoved() {
    for (const [name, device] of this.#devices) {
      if (device.cleared.size === 0) continue;
      for (const incarnation of device.cleared) device.live.delete(incarnation);
      device.cleared.clear();
      if (device.live.size > 0 || device.presence || total(countOf(device)) > 0) continue;
      this.#devices.delete(name);
      this.#removed.delete(name);
      this.#names = undefined;
    }
  }

  /** @param {string} name @returns {Parts} */
  #device(name) {
    let parts = this.#devices.get(name);
    if (!parts) {
      parts = {
        presence: undefined,
        floor: 0,
        base: zero(),
        pressed: zero(),
        live: new Map(),
        cleared: new Set(),
        zeros: new Map(),
        removed: false,
        changedAt: 0,
        trouble: undefined,
      };
      this.#devices.set(name, parts);
      this.#names = undefined;
    }
    return parts;
  }
}

const order = new Intl.Collator('en', { numeric: true });

/** @param {Parts} parts */
function countOf({ floor, base, pressed, live, zeros }) {
  let count = plus(base, pressed);
  for (const [name, part] of live) if (isAbove(name, floor)) count = plus(count, minus(part, zeros.get(name) ?? zero()));
  return count;
}

/** @param {Count} count */
function total(count) {
  return COLORS.reduce((sum, color) => sum + count[color], 0);
}

/** @param {any} value @returns {Map<string, Count>} */
function readZeros(value) {
  const zeros = new Map();
  for (const [name, part] of Object.entries(value?.counts ?? {})) {
    const count = readCount(part);
    if (count) zeros.set(name, count);
  }
  return zeros;
}

/** @param {string} incarnation @param {number} floor */
function isAbove(incarnation, floor) {
  return Number.parseInt(incarnation, 10) > floor;
}

/** @param {any} value @returns {Trouble | undefined} */
function readTrouble(value) {
  const isTrouble = Number.isSafeInteger(value?.malformed) && Number.isFinite(value.at) && typeof value.reason === 'string';
  return isTrouble && value.malformed > 0 ? value : undefined;
}

/** @param {any} value @returns {Count | undefined} */
function readNumbers(value) {
  return COLORS.every((color) => Number.isFinite(value?.[color])) ? value : undefined;
}
