// @ts-check
/** One client: what is known of it, its subscriptions, and the end of its connection or its session. */
import { api, ApiError, problemOf } from './api.js';
import { ask } from './ask.js';
import { attribute, element, elementOf, make, show, write } from './dom.js';
import { age, whole } from './format.js';
import { keyOf, MAX_ROWS, nameOf } from './clientlist.js';
import { Rows } from './rows.js';

/** @typedef {import('./clientlist.js').Entry} Entry */
/**
 * @typedef {object} Subscription as the API lists it
 * @property {number} id
 * @property {string} filter
 * @property {string} [group]
 * @property {'latest' | 'every' | 'state'} mode
 * @property {boolean} stored
 * @property {number} pending
 * @property {number} lost
 */
/** @typedef {{ row: HTMLElement, cells: HTMLElement[] }} Row */

const DATES = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const STANDINGS = { here: 'Connected', away: 'Away: its session is kept', gone: 'Not connected any more' };
/** What needs the room of two. */
const WIDE = ['Address', 'Connected'];
const SEARCH_LENGTH = 64;

export class ClientDetail {
  /** As it was last seen. @type {Entry | undefined} */
  #entry;
  /** @type {keyof typeof STANDINGS} */
  #standing = 'gone';
  /** @type {Rows<Subscription, Row>} */
  #rows;
  #clock;
  #onDone;
  /** @type {Map<string, HTMLElement>} */
  #traits = new Map();

  /** @param {import('./clock.js').HubClock} clock @param {() => void} onDone something has been done, so that the lists are old */
  constructor(clock, onDone) {
    this.#clock = clock;
    this.#onDone = onDone;
    this.#rows = new Rows(element('subscriptions'), ({ id }) => String(id), makeRow);
    element('disconnect').addEventListener('click', () => void this.#disconnect());
    element('end').addEventListener('click', () => void this.#end());
  }

  /** Of the client that is shown. */
  get key() {
    return this.#entry && keyOf(this.#entry);
  }

  /** What finds it in a list, among others. */
  get search() {
    const { client_id, address, transport = '' } = this.#entry ?? {};
    return [...(client_id || address || transport)].slice(0, SEARCH_LENGTH).join('');
  }

  /** Another client is to be shown. @param {Entry} entry */
  choose(entry) {
    this.#entry = undefined;
    show('outcome', '');
    element('subscribed').hidden = true;
    this.update(entry);
  }

  /** What a list says of it now; undefined: it is in none. @param {Entry | undefined} entry */
  update(entry) {
    if (entry) this.#entry = entry;
    this.#standing = entry ? (entry.transport ? 'here' : 'away') : 'gone';
    this.draw();
  }

  draw() {
    const entry = this.#entry;
    if (!entry) return;
    element('nothing').hidden = true;
    element('chosen').hidden = false;
    show('client-name', nameOf(entry));
    show('standing', STANDINGS[this.#standing]);
    attribute(element('standing'), 'data-standing', this.#standing);
    const texts = traitsOf(entry, this.#clock);
    for (const [name, text] of texts) this.#trait(name, text);
    for (const [name, node] of this.#traits) {
      if (texts.some(([other]) => other === name)) continue;
      node.parentElement?.remove();
      this.#traits.delete(name);
    }
    const isGone = this.#standing === 'gone';
    elementOf('disconnect', HTMLButtonElement).hidden = this.#standing === 'away';
    elementOf('disconnect', HTMLButtonElement).disabled = isGone;
    elementOf('end', HTMLButtonElement).hidden = (entry.transport ?? 'mqtt') !== 'mqtt';
    elementOf('end', HTMLButtonElement).disabled = isGone;
  }

  /** Asks for its subscriptions. */
  async refresh() {
    const entry = this.#entry;
    if (!entry || this.#standing === 'gone') return;
    const isShown = () => this.#entry && this.#entry.id === entry.id && this.key === keyOf(entry);
    try {
      const { subscriptions, next } = await api(`api/v1/clients/${entry.id}/subscriptions?limit=${MAX_ROWS}`);
      if (isShown()) this.#list(subscriptions, next !== undefined);
    } catch (error) {
      // It has gone meanwhile; the next look at the lists says so.
      if (!(error instanceof ApiError && error.status === 404)) throw error;
    }
  }

  /** @param {Subscription[]} subscriptions @param {boolean} isPart there may be more */
  #list(subscriptions, isPart) {
    element('subscribed').hidden = false;
    for (const [{ cells }, { filter, group, mode, pending, lost }] of this.#rows.fit(subscriptions)) {
      const [filterCell, modeCell, pendingCell, lostCell] = cells;
      write(filterCell, group === undefined ? filter : `$share/${group}/${filter}`);
      write(modeCell, mode);
      write(pendingCell, whole(pending));
      write(lostCell, whole(lost));
    }
    const total = Math.max(subscriptions.length, isPart ? (this.#entry?.subscriptions ?? 0) : 0);
    const rest = total - subscriptions.length;
    show('subscriptions-tally', whole(total));
    show('subscriptions-note', total === 0 ? 'It has subscribed to nothing.' : rest > 0 ? `and ${whole(rest)} more` : '');
  }

  /** @param {string} name @param {string} text */
  #trait(name, text) {
    let node = this.#traits.get(name);
    if (!node) {
      node = make('dd');
      node.dir = 'auto';
      const pair = make('div', WIDE.includes(name) ? 'wide' : '');
      pair.append(make('dt', '', name), node);
      element('traits').append(pair);
      this.#traits.set(name, node);
    }
    write(node, text);
  }

  async #disconnect() {
    const text = 'Its connection ends. It may connect again: to keep it out, remove its user or change its rules.';
    await this.#do('Disconnect', text, 'Disconnect', ({ id }) => `api/v1/clients/${id}`, 'was disconnected.');
  }

  async #end() {
    const text =
      'Its session ends with its subscriptions and all that waits for it; so does its connection, if it has one. Of several users with ' +
      'this client identifier, all sessions end.';
    // Not as a part of the path: browsers read `..` there.
    const path = (/** @type {Entry} */ { client_id = '' }) => `api/v1/sessions?client_id=${encodeURIComponent(client_id)}`;
    await this.#do('End the session of', text, 'End session', path, 'has no session any more.');
  }

  /** @param {string} verb @param {string} text @param {string} yes @param {(entry: Entry) => string} path @param {string} done */
  async #do(verb, text, yes, path, done) {
    const { key } = this;
    if (!this.#entry || !(await ask(verb, nameOf(this.#entry), text, yes))) return;
    // As it is known by now: it may have come back under another number.
    if (this.key !== key) return;
    const name = nameOf(this.#entry);
    const gone = `${name} had gone already.`;
    let outcome = gone;
    if (this.#standing !== 'gone') {
      try {
        await api(path(this.#entry), 'DELETE');
        outcome = `${name} ${done}`;
      } catch (error) {
        outcome = error instanceof ApiError && error.status === 404 ? gone : problemOf(error);
      }
    }
    if (this.key === key) show('outcome', outcome);
    this.#onDone();
  }
}

/** @param {Entry} entry @param {import('./clock.js').HubClock} clock @returns {[string, string][]} */
function traitsOf(entry, clock) {
  const { user, identity, address, transport, since, keep_alive_secs, expires_in_secs, lost } = entry;
  const proof = identity === 'user' || user === undefined ? '' : ` (${identity})`;
  /** @type {[string, string | undefined | false][]} */
  const traits = [
    ['User', (user ?? identity) + proof],
    ['Transport', transport],
    ['Address', address],
    ['Connected', since !== undefined && `${DATES.format(since)} (${age(clock.age_ms(since))})`],
    ['Keep-alive', keep_alive_secs !== undefined && `${whole(keep_alive_secs)} s`],
    ['Ends in', expires_in_secs !== undefined && age(expires_in_secs * 1_000)],
    ['Over a restart', transport === undefined && (entry.stored ? 'kept' : 'not kept')],
    ['Will', transport === undefined && (entry.will ? 'to be published' : 'none')],
    ['Subscriptions', whole(entry.subscriptions)],
    ['Pending', whole(entry.pending)],
    ['In flight', whole(entry.in_flight)],
    ['Lost', lost !== undefined && whole(lost)],
    ['ID', String(entry.id)],
  ];
  return /** @type {[string, string][]} */ (traits.filter(([, text]) => text !== undefined && text !== false));
}

/** @returns {Row} */
function makeRow() {
  const row = make('tr');
  const filter = make('th');
  filter.scope = 'row';
  filter.dir = 'auto';
  const cells = [filter, make('td'), make('td', 'number'), make('td', 'number')];
  row.append(...cells);
  return { row, cells };
}
