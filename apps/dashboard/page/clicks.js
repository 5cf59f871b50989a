// @ts-check
/**
 * This tab as a device of the bus: it owns cumulative counters, so that nothing that happens to a message
 * (lost, repeated, late) can change how many clicks there were.
 *
 * A browser is one device, `web-<8 hex>`. A tab takes an *incarnation* `<boot>-<nonce>` with its first click and
 * keeps it over reloads. Each incarnation is a record in localStorage, written before anything is sent, and only
 * the tab that holds it may raise it: two tabs that raised one counter would swallow each other's clicks. Records
 * that nobody holds and that the hub has not wholly confirmed are a closed tab's last words; the next tab says them.
 *
 * What the room's value contains: see `Counter.beyond`.
 */

import { covers, larger, minus, plus, readCount, some, zero } from './count.js';
import { Environment, hex } from './tab.js';

/** @typedef {import('./count.js').Count} Count */
/** @typedef {import('./latchbus.js').Bus} Bus */
/** @typedef {import('./latchbus.js').Message} Message */
/** @typedef {import('./latchbus.js').Topic} Topic */
/** @typedef {import('./tab.js').Hold} Hold */
/**
 * @typedef {object} Confirmation
 * @property {number} rev
 * @property {Count} count
 * @property {boolean} [isOld] from an earlier life of the page: what came on its topic meanwhile was not seen
 */
/**
 * @typedef {object} Incarnation
 * @property {string} name `<boot>-<nonce>`
 * @property {number} boot
 * @property {string} topic
 * @property {Hold} hold
 * @property {Count} count clicks made
 * @property {string} epoch in which the following counts were confirmed; in another one the hub may have lost them
 * @property {Count} confirmed the largest count that the hub had
 * @property {Count} included the part of it that is in the room's value on display
 * @property {Confirmation[]} recent confirmations that the value on display may not contain yet
 * @property {number | undefined} clearedRev when the hub cleared its topic, as it does when it folds
 * @property {boolean} isClosed takes no clicks and sends no reports any more: it only waits for a value that contains it
 * @property {Count | undefined} sent on this connection
 */

/** The hub folds what lies 8 boots behind the newest; an idle tab changes over in good time before that. */
const RENEW_AFTER_BOOTS = 4;
const REPEAT_MS = 60_000;
const REFUSED_RETRY_MS = 5_000;
/** A tab gets its own incarnation back within this, or another tab has it: one of which this one is a duplicate. */
const RESUME_MS = 1_000;
/** After a reload nobody else has it, but on a busy machine the page before may take its time to let go of it. */
const RELOAD_RESUME_MS = 20_000;
/** Last words of closed tabs that one tab looks after at a time. */
const MAX_ORPHANS = 32;
/** A confirmed record that nobody came back for. */
const FORGET_MS = 24 * 3_600_000;
/** Confirmations that wait for a room value; at the bound the newest takes the place of the one before it. */
const MAX_RECENT = 64;

/** The clicks of this tab in one room, and those that closed tabs of this browser left behind there. */
export class Counter {
  /** The id of this browser. @type {string} */
  device;
  /** Why the hub refused the last report, if it did. @type {string | undefined} */
  refused;
  #bus;
  #messages;
  #prefix;
  #topicPrefix;
  #valuesTopic;
  #environment;
  #changed;
  /** @type {Map<string, Incarnation>} */
  #held = new Map();
  /** @type {Incarnation | undefined} the one that this tab's clicks go to */
  #current;
  /** @type {Incarnation | undefined} at most one report is in flight */
  #reporting;
  /** The room's value on display. */
  #shown = { rev: -1, epoch: '' };
  /** Our device's floor at the hub: boots at or below it were folded at revision `rev`. */
  #floor = { floor: 0, rev: -1, epoch: '' };
  #highestBoot = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry;
  #repeat;
  /** @type {Promise<void> | undefined} until it is known whether the tab has its own incarnation again */
  #resuming;
  /** Another one behind each suspension: what was asked for before it is not wanted any more. */
  #life = {};

  /**
   * @param {Bus} bus
   * @param {string} room
   * @param {Topic} messages the room's topics; `observe` and `synced` are called as they come
   * @param {() => void} changed called when a number of this counter changed
   * @param {Environment} [environment]
   */
  constructor(bus, room, messages, changed, environment = new Environment()) {
    this.#bus = bus;
    this.#messages = messages;
    this.#changed = changed;
    this.#environment = environment;
    const { local } = environment;
    let device = local.getItem('latchbus/device') ?? '';
    if (!/^web-[0-9a-f]{8}$/.test(device)) {
      device = `web-${hex(environment.random32())}`;
      local.setItem('latchbus/device', device);
    }
    this.device = device;
    this.#prefix = `latchbus/clicks/${room}/`;
    this.#topicPrefix = `clicks/${room}/${device}/`;
    this.#valuesTopic = `clicks/${room}/values`;
    bus.state.subscribe(({ phase }) => {
      if (phase === 'live') return;
      for (const incarnation of this.#held.values()) incarnation.sent = undefined;
    });
    this.#repeat = setInterval(() => {
      for (const incarnation of this.#held.values()) incarnation.sent = undefined;
      this.#report();
    }, REPEAT_MS);
    this.#resume(environment.isReload ? RELOAD_RESUME_MS : RESUME_MS);
  }

  /** The incarnation that takes this tab's clicks. Undefined until the first one. */
  get incarnation() {
    return this.#current?.name;
  }

  /** Clicks that the hub has not confirmed. */
  get pending() {
    return this.#sum((incarnation) => minus(incarnation.count, this.#known(incarnation).confirmed));
  }

  /**
   * Own clicks that the room's value on display does not contain. The number to show is always
   *
   *     values + beyond
   *
   * Invariant: each own click is in exactly one of the two. `values` at revision v contains every report that the
   * hub took at a revision below v, and no later one. So a report moves from `beyond` into `values` when a value
   * with v above its revision is shown, neither when it is sent nor when it is acknowledged. Its revision is known
   * by then: the echo on the report's own topic comes before that value on the same subscription; if the echo was
   * conflated, a later report of ours took its place, and that one was sent after the acknowledgement of this one.
   * (Or a fold took its place while the acknowledgement was under way: then the click shows twice until that comes.)
   */
  get beyond() {
    return this.#sum((incarnation) => minus(incarnation.count, this.#known(incarnation).included));
  }

  /** Counts a click: stored first, then shown, then sent. @param {keyof Count} color */
  click(color) {
    if (this.#current && (!this.#current.hold.held || this.#isOutdated(this.#current))) this.#letGo(this.#current);
    const incarnation = this.#current ?? this.#take();
    incarnation.count = plus(incarnation.count, { ...zero(), [color]: 1 });
    this.#save(incarnation);
    this.#changed();
    this.#report();
  }

  /** A live message of the room. @param {Message} message */
  observe(message) {
    const { topic, rev, epoch } = message;
    if (topic.startsWith(this.#topicPrefix)) {
      const rest = topic.slice(this.#topicPrefix.length);
      if (rest === 'floor') this.#observeFloor(message);
      if (rest.startsWith('count/')) this.#observeEcho(rest.slice('count/'.length), message);
    }
    if (topic === this.#valuesTopic) {
      this.#shown = { rev, epoch };
      for (const incarnation of [...this.#held.values()]) this.#include(incarnation);
    }
  }

  /** A message of a snapshot: what was cleared leaves no other trace. @param {Message} message */
  observeCleared({ topic, cleared, rev }) {
    for (const incarnation of this.#held.values()) {
      if (cleared && incarnation.topic === topic) incarnation.clearedRev = rev;
    }
  }

  /**
   * The hub has said all it knows on this connection.
   * @param {Message | undefined} values the one on display, if there is one
   * @param {string} epoch
   */
  synced(values, epoch) {
    this.#shown = { rev: values?.rev ?? -1, epoch };
    const floor = this.#messages.last.get(`${this.#topicPrefix}floor`);
    this.#floor = { floor: readFloor(floor?.value), rev: floor?.rev ?? -1, epoch };
    for (const incarnation of [...this.#held.values()]) this.#settle(incarnation);
    void this.#adopt();
    this.#report();
  }

  /** The tab goes away or into the browser's back/forward cache: others may take over. */
  suspend() {
    this.#life = {};
    this.#resuming = undefined;
    for (const incarnation of this.#held.values()) incarnation.hold.release();
    this.#held.clear();
    this.#current = undefined;
  }

  /** Back from the cache. */
  resume() {
    this.#resume(RESUME_MS);
  }

  /** For good. */
  close() {
    clearInterval(this.#repeat);
    clearTimeout(this.#retry);
    this.suspend();
  }

  // ---- incarnations ----

  /** A new incarnation. The nonce keeps apart what two tabs may take with the same boot at the same moment. */
  #take() {
    const boot = this.#newestBoot() + 1;
    const name = `${boot}-${hex(this.#environment.random32())}`;
    this.#environment.local.setItem('latchbus/boot', String(boot));
    const blank = { count: zero(), epoch: this.#shown.epoch, confirmed: zero(), included: zero(), recent: [] };
    const incarnation = this.#keep(name, this.#environment.holdFresh(this.#prefix + name), blank);
    this.#current = incarnation;
    this.#environment.session.setItem(this.#prefix, name);
    return incarnation;
  }

  /** Asks for the tab's own incarnation. Until that is decided, clicks are stored and shown, not reported. @param {number} wait_ms */
  #resume(wait_ms) {
    const { session } = this.#environment;
    const life = this.#life;
    const name = session.getItem(this.#prefix);
    if (!name) return;
    this.#resuming = (async () => {
      await this.#claim(name, wait_ms, { asCurrent: true });
      if (this.#life !== life) return;
      // It is another tab's: the next reload need not wait for it.
      if (!this.#held.has(name) && session.getItem(this.#prefix) === name) session.removeItem(this.#prefix);
      this.#resuming = undefined;
      this.#changed();
      this.#report();
    })();
  }

  /**
   * The tab has its own incarnation again. Clicks that came meanwhile were stored in a new one, of which nothing was
   * reported: they go where the tab's others are.
   * @param {Incarnation} incarnation
   */
  #goOn(incarnation) {
    const meanwhile = this.#current;
    this.#current = incarnation;
    if (this.#messages.synced) this.#settle(incarnation);
    if (!meanwhile) return;
    // A counter that the hub has folded, or soon will, is delivered like that of a closed tab.
    if (this.#current !== incarnation || this.#isOutdated(incarnation)) this.#current = meanwhile;
    this.#environment.session.setItem(this.#prefix, this.#current.name);
    if (this.#current === meanwhile || !meanwhile.hold.held) return;
    // This order: if the browser dies in between, clicks may be lost, never counted twice.
    this.#letGo(meanwhile, { forget: true });
    incarnation.count = plus(incarnation.count, meanwhile.count);
    this.#save(incarnation);
  }

  /** Last words of closed tabs. */
  async #adopt() {
    const life = this.#life;
    await this.#resuming;
    if (this.#life !== life) return;
    const { local, now } = this.#environment;
    const names = [];
    for (let i = 0; i < local.length; i++) {
      const name = local.key(i)?.startsWith(this.#prefix) ? local.key(i)?.slice(this.#prefix.length) : '';
      if (name && !this.#held.has(name) && parseName(name)) names.push(name);
    }
    for (const name of names) {
      const record = this.#load(name);
      if (!record) continue;
      // An acknowledgement that no value has followed yet may be that of a report that came after a fold.
      if (!covers(record.included, record.count)) {
        if (this.#held.size <= MAX_ORPHANS) await this.#claim(name, 0);
      } else if (now() - record.at > FORGET_MS) {
        const hold = await this.#environment.hold(this.#prefix + name, 0);
        if (hold) local.removeItem(this.#prefix + name);
        hold?.release();
      }
    }
    this.#changed();
    this.#report();
  }

  /** @param {string} name @param {number} wait_ms */
  async #claim(name, wait_ms, { asCurrent = false } = {}) {
    if (!parseName(name) || this.#held.has(name) || !this.#load(name)) return;
    const life = this.#life;
    const hold = await this.#environment.hold(this.#prefix + name, wait_ms);
    // The page has gone into the cache meanwhile.
    if (this.#life !== life) return hold?.release();
    // Read again: who held it until now may have written to it.
    const record = hold && this.#load(name);
    if (!record || this.#held.has(name)) return hold?.release();
    const incarnation = this.#keep(name, hold, record);
    if (asCurrent) this.#goOn(incarnation);
    else if (this.#messages.synced) this.#settle(incarnation);
  }

  /**
   * @param {string} name @param {Hold} hold
   * @param {Pick<Incarnation, 'count' | 'epoch' | 'confirmed' | 'included' | 'recent'>} record
   */
  #keep(name, hold, { count, epoch, confirmed, included, recent }) {
    const { boot } = /** @type {{ boot: number }} */ (parseName(name));
    const topic = `${this.#topicPrefix}count/${name}`;
    /** @type {Incarnation} */
    const incarnation = {
      name,
      boot,
      topic,
      hold,
      count,
      epoch,
      confirmed,
      included,
      recent,
      clearedRev: undefined,
      isClosed: false,
      sent: undefined,
    };
    this.#held.set(name, incarnation);
    return incarnation;
  }

  /** @param {Incarnation} incarnation */
  #letGo(incarnation, { forget = false } = {}) {
    this.#held.delete(incarnation.name);
    if (this.#current === incarnation) this.#current = undefined;
    if (forget) this.#environment.local.removeItem(this.#prefix + incarnation.name);
    incarnation.hold.release();
  }

  // ---- what the hub knows ----

  /** Brings an incarnation in line with the hub's retained topics. @param {Incarnation} incarnation */
  #settle(incarnation) {
    const echo = this.#messages.last.get(incarnation.topic);
    if (echo) this.#observeEcho(incarnation.name, echo);
    if (this.#held.has(incarnation.name)) this.#fold(incarnation);
    if (this.#held.has(incarnation.name)) this.#include(incarnation);
  }

  /** @param {string} name @param {Message} message */
  #observeEcho(name, { value, cleared, rev, epoch }) {
    this.#highestBoot = Math.max(this.#highestBoot, parseName(name)?.boot ?? 0);
    const incarnation = this.#held.get(name);
    if (!incarnation) return;
    incarnation.clearedRev = cleared ? rev : undefined;
    const count = readCount(value);
    if (!count) return;
    if (covers(incarnation.count, count)) return this.#confirm(incarnation, count, rev, epoch);
    // The hub knows more of our counter than we do: our storage went back in time, or it was copied and somebody
    // else counts here too. Leave it to them.
    this.#confirm(incarnation, count, rev, epoch);
    this.#moveOn(incarnation, incarnation.confirmed);
  }

  /** @param {Message} message */
  #observeFloor({ value, rev, epoch }) {
    this.#floor = { floor: readFloor(value), rev, epoch };
    for (const incarnation of [...this.#held.values()]) this.#fold(incarnation);
  }

  /**
   * An incarnation at or below the floor counts no longer: what the hub had of it before the fold is in the base, and
   * the rest needs a new one. Two doubts remain. What only an earlier epoch confirmed is taken as folded: rather lose
   * than invent. What was sent before a cut and never answered is taken as not received, since an answer is
   * missing mostly because the report is; to be wrong takes a fold between that cut and the next report.
   * @param {Incarnation} incarnation
   */
  #fold(incarnation) {
    if (incarnation.boot > this.#floor.floor || incarnation.isClosed || this.#reporting === incarnation) return;
    if (incarnation.epoch !== this.#floor.epoch) return this.#moveOn(incarnation, incarnation.confirmed);
    let taken = incarnation.included;
    for (const confirmation of incarnation.recent) {
      if (this.#isTaken(incarnation, confirmation)) taken = larger(taken, confirmation.count);
    }
    this.#moveOn(incarnation, taken);
  }

  /**
   * Whether a report of a folded incarnation was counted before the fold: the hub acknowledges those that come after it
   * too. The fold clears the topic of what it counted, so the revision of that clearing decides; the floor alone
   * says when the last of perhaps several folds was, and serves where the clearing can't have been seen.
   * @param {Incarnation} incarnation @param {Confirmation} confirmation
   */
  #isTaken({ clearedRev }, { rev, isOld }) {
    return rev < (clearedRev ?? (isOld ? this.#floor.rev : -1));
  }

  /**
   * Long behind and with nothing to lose: time to change over, so that the hub never folds a counter in use.
   * @param {Incarnation} incarnation
   */
  #isOutdated(incarnation) {
    const isQuiet = covers(this.#known(incarnation).included, incarnation.count) && this.#reporting !== incarnation;
    return isQuiet && this.#newestBoot() - incarnation.boot >= RENEW_AFTER_BOOTS;
  }

  /** What counts as known of an incarnation beside the value on display. @param {Incarnation} incarnation */
  #known({ epoch, confirmed, included }) {
    return epoch === this.#shown.epoch ? { confirmed, included } : { confirmed: zero(), included: zero() };
  }

  /**
   * Leaves an incarnation of which the hub has `taken`; the other clicks go to a new one.
   * @param {Incarnation} incarnation @param {Count} taken
   */
  #moveOn(incarnation, taken) {
    const rest = minus(incarnation.count, taken);
    if (this.#current === incarnation) this.#current = undefined;
    // This order: if the browser dies in between, clicks may be lost, never counted twice.
    incarnation.count = minus(incarnation.count, rest);
    incarnation.isClosed = true;
    this.#save(incarnation);
    if (covers(this.#known(incarnation).included, incarnation.count) || incarnation.epoch !== this.#shown.epoch) {
      this.#letGo(incarnation, { forget: true });
    }
    if (!some(rest)) return this.#changed();
    const heir = this.#current?.hold.held ? this.#current : this.#take();
    heir.count = plus(heir.count, rest);
    this.#save(heir);
    this.#changed();
    this.#report();
  }

  /** @param {Incarnation} incarnation @param {Count} count @param {number} rev @param {string} epoch */
  #confirm(incarnation, count, rev, epoch) {
    const isFolded = epoch === this.#floor.epoch && incarnation.boot <= this.#floor.floor;
    if (isFolded && !this.#isTaken(incarnation, { rev, count })) return;
    if (epoch !== incarnation.epoch) {
      Object.assign(incarnation, { epoch, confirmed: zero(), included: zero(), recent: [], clearedRev: undefined });
    }
    incarnation.confirmed = larger(incarnation.confirmed, count);
    if (incarnation.recent.length >= MAX_RECENT) incarnation.recent.pop();
    incarnation.recent.push({ rev, count });
    this.#include(incarnation);
    this.#save(incarnation);
    this.#changed();
  }

  /** Moves what the value on display contains out of `beyond`. @param {Incarnation} incarnation */
  #include(incarnation) {
    if (incarnation.epoch !== this.#shown.epoch) return;
    const passed = incarnation.recent.filter(({ rev }) => rev < this.#shown.rev);
    if (passed.length > 0) {
      incarnation.recent = incarnation.recent.filter(({ rev }) => rev >= this.#shown.rev);
      for (const { count } of passed) incarnation.included = larger(incarnation.included, count);
      this.#save(incarnation);
    }
    const isDone = covers(incarnation.included, incarnation.count);
    if (isDone && incarnation !== this.#current && incarnation !== this.#reporting) this.#letGo(incarnation);
  }

  // ---- reports ----

  #report() {
    if (this.#resuming || this.#reporting || this.#bus.state.value?.phase !== 'live' || !this.#messages.synced) return;
    for (const incarnation of this.#held.values()) {
      const { sent, count, topic, isClosed } = incarnation;
      if (isClosed || (sent && covers(sent, count))) continue;
      incarnation.sent = count;
      this.#reporting = incarnation;
      this.#bus.publish(topic, count, { retain: true }).then(
        ({ rev, epoch }) => {
          this.refused = undefined;
          this.#reported(() => this.#confirm(incarnation, count, rev, epoch));
        },
        ({ code }) => {
          this.refused = code === 'disconnected' ? undefined : code;
          if (this.refused) this.#retryLater();
          this.#reported(() => {});
        },
      );
      return;
    }
  }

  /** @param {() => void} outcome */
  #reported(outcome) {
    const incarnation = this.#reporting;
    this.#reporting = undefined;
    outcome();
    if (incarnation && this.#held.has(incarnation.name) && this.#messages.synced) this.#fold(incarnation);
    this.#changed();
    this.#report();
  }

  #retryLater() {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => {
      for (const incarnation of this.#held.values()) {
        if (!covers(incarnation.confirmed, incarnation.count)) incarnation.sent = undefined;
      }
      this.#report();
    }, REFUSED_RETRY_MS);
  }

  // ---- records ----

  /** @param {Incarnation} incarnation */
  #save(incarnation) {
    const { name, hold, count, epoch, confirmed, included, recent } = incarnation;
    // What came late for a record that was let go: it is another tab's now.
    if (this.#held.get(name) !== incarnation || !hold.held) return;
    const record = { count, epoch, confirmed, included, recent, at: this.#environment.now() };
    this.#environment.local.setItem(this.#prefix + name, JSON.stringify(record));
  }

  /** @param {string} name */
  #load(name) {
    try {
      const record = JSON.parse(this.#environment.local.getItem(this.#prefix + name) ?? 'null');
      const count = readCount(record?.count);
      const confirmed = readCount(record?.confirmed);
      const included = readCount(record?.included);
      if (!count || !confirmed || !included || !Array.isArray(record.recent)) return undefined;
      /** @type {Confirmation[]} */
      const recent = record.recent.map((/** @type {Confirmation} */ old) => ({ ...old, isOld: true }));
      return { count, confirmed, included, recent, epoch: String(record.epoch), at: Number(record.at) };
    } catch {
      return undefined;
    }
  }

  #newestBoot() {
    const stored = Number(this.#environment.local.getItem('latchbus/boot'));
    return Math.max(Number.isSafeInteger(stored) ? stored : 0, this.#floor.floor, this.#highestBoot);
  }

  /** @param {(incarnation: Incarnation) => Count} part */
  #sum(part) {
    return [...this.#held.values()].map(part).reduce(plus, zero());
  }
}

/** @param {string} name */
function parseName(name) {
  const [, boot] = /^([1-9][0-9]{0,9})-[0-9a-f]{8}$/.exec(name) ?? [];
  return boot ? { boot: Number(boot) } : undefined;
}

/** @param {any} value of a floor topic */
function readFloor(value) {
  return Number.isSafeInteger(value?.floor) ? value.floor : 0;
}
