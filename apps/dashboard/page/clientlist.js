// @ts-check
/** A list of clients, of those that are connected or of sessions that are kept: one of them can be chosen. */
import { attribute, element, make, show, write } from './dom.js';
import { whole } from './format.js';
import { Rows } from './rows.js';

/**
 * A client that is connected, or the session of one that is away, as the API lists it.
 * @typedef {object} Entry
 * @property {number} id
 * @property {string} [client_id]
 * @property {string} [user]
 * @property {string} identity
 * @property {string} [transport] connected
 * @property {string} [address] connected
 * @property {number} [since] connected: Unix milliseconds
 * @property {number} [keep_alive_secs] connected
 * @property {number} [lost] connected
 * @property {number} [expires_in_secs] away
 * @property {boolean} [stored] away
 * @property {boolean} [will] away
 * @property {number} subscriptions
 * @property {number} pending
 * @property {number} in_flight
 */
/** @typedef {[className: string, text: (entry: Entry) => string]} Column */
/** @typedef {{ row: HTMLElement, button: HTMLButtonElement, name: HTMLElement, who: HTMLElement, cells: HTMLElement[] }} Row */

/** Entries that a list draws; the rest is said in a sentence. */
export const MAX_ROWS = 200;

/**
 * Tells a client from all others: those of MQTT by their identifier and user, so that one stays itself when it comes back; others
 * by their connection. @param {Entry} entry
 */
export function keyOf({ id, client_id, user, identity, transport = 'mqtt', since }) {
  return JSON.stringify(transport === 'mqtt' ? [client_id, identity, user] : [transport, id, since]);
}

/** @param {Entry} entry */
export function nameOf({ client_id, transport, id }) {
  return client_id || `${transport} ${id}`;
}

export class ClientList {
  /** @type {Rows<Entry, Row>} */
  #rows;
  #id;
  #columns;
  #onChoose;
  /** Which row the keyboard comes to. @type {HTMLButtonElement | undefined} */
  #stop;

  /**
   * @param {string} id of the table's body; what is said of the list has it too
   * @param {Column[]} columns beside the name
   * @param {(key: string) => void} onChoose
   */
  constructor(id, columns, onChoose) {
    this.#id = id;
    this.#columns = columns;
    this.#onChoose = onChoose;
    const body = element(id);
    this.#rows = new Rows(body, keyOf, (entry) => this.#make(keyOf(entry)));
    body.addEventListener('keydown', (event) => this.#onKey(event));
  }

  /**
   * @param {Entry[]} entries @param {number} total with those that are not among the entries
   * @param {string | undefined} chosen its key @param {string} none what is said of an empty list
   */
  draw(entries, total, chosen, none) {
    /** @type {HTMLButtonElement | undefined} */
    let stop;
    for (const [{ row, button, name, who, cells }, entry] of this.#rows.fit(entries)) {
      write(name, nameOf(entry));
      write(who, [entry.user, entry.address].filter(Boolean).join(' · '));
      this.#columns.forEach(([, text], i) => write(cells[i], text(entry)));
      const isChosen = row.dataset.key === chosen;
      attribute(button, 'aria-current', isChosen ? 'true' : undefined);
      button.tabIndex = -1;
      if (isChosen) stop = button;
    }
    if (this.#stop?.isConnected) stop = this.#stop;
    stop ??= element(this.#id).querySelector('button') ?? undefined;
    if (stop) stop.tabIndex = 0;
    this.#stop = stop;
    show(`${this.#id}-tally`, whole(total));
    const rest = total - entries.length;
    const more = rest > 0 ? `and ${whole(rest)} more: search for those that you look for` : '';
    show(`${this.#id}-note`, total > 0 ? more : none);
  }

  /** @param {string} key @returns {Row} */
  #make(key) {
    const row = make('tr');
    row.dataset.key = key;
    const header = make('th');
    header.scope = 'row';
    const button = make('button', 'pick');
    button.type = 'button';
    const name = make('bdi', 'name');
    const who = make('bdi', 'who');
    button.append(name, who);
    button.addEventListener('click', () => this.#onChoose(key));
    button.addEventListener('focus', () => {
      if (this.#stop) this.#stop.tabIndex = -1;
      button.tabIndex = 0;
      this.#stop = button;
    });
    header.append(button);
    const cells = this.#columns.map(([className]) => make('td', className));
    row.append(header, ...cells);
    return { row, button, name, who, cells };
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const { key, altKey, ctrlKey, metaKey } = event;
    if (altKey || ctrlKey || metaKey) return;
    const buttons = [...element(this.#id).querySelectorAll('button')];
    const at = buttons.findIndex((button) => button === document.activeElement);
    const places = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 };
    const place = /** @type {Record<string, number>} */ (places)[key];
    if (place === undefined) return;
    event.preventDefault();
    buttons[place]?.focus();
  }
}
