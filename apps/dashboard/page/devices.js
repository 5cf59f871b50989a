// @ts-check
/** The table of a room's devices. A row is made once, and only what changed in it is written. */
import { attribute, element, make, show, write } from './dom.js';
import { age, short, whole } from './format.js';

/** Rows that the table draws; the rest is said in a sentence. */
const MAX_ROWS = 200;
const SHORT_FROM = 10_000_000;

export class DeviceTable {
  /** @type {Map<string, { row: HTMLElement, cells: HTMLElement[] }>} */
  #rows = new Map();
  #body = element('devices');
  #room;

  /** @param {import('./room.js').Room} room */
  constructor(room) {
    this.#room = room;
  }

  draw() {
    const { isKnown, isLive, deviceCount, counter } = this.#room;
    const gone = new Set(this.#rows.keys());
    /** @type {HTMLElement | null} */
    let previous = null;
    for (const { name, presence, count, changedAt } of this.#room.devices(MAX_ROWS)) {
      gone.delete(name);
      const { row, cells } = this.#rows.get(name) ?? this.#make(name, name === counter.device);
      const [presenceCell, redCell, blueCell, ageCell] = cells;
      const known = isLive ? presence : undefined;
      if (presenceCell) {
        write(presenceCell, known ?? '–');
        attribute(presenceCell, 'data-presence', known ?? 'unknown');
      }
      writeCount(redCell, count.red);
      writeCount(blueCell, count.blue);
      write(ageCell, isLive ? age(this.#room.clock.age_ms(changedAt)) : '–');
      /** @type {ChildNode | null} */
      const place = previous ? previous.nextSibling : this.#body.firstChild;
      if (place !== row) this.#body.insertBefore(row, place);
      previous = row;
    }
    for (const name of gone) {
      this.#rows.get(name)?.row.remove();
      this.#rows.delete(name);
    }
    show('devices-tally', isKnown ? whole(deviceCount) : '');
    const rest = deviceCount - MAX_ROWS;
    const more = rest > 0 ? `and ${whole(rest)} more` : '';
    const none = deviceCount ? more : 'No device has clicked here yet.';
    show('devices-note', isKnown ? none : 'Waiting for the hub…');
  }

  /** @param {string} name @param {boolean} isOwn */
  #make(name, isOwn) {
    const row = make('tr');
    row.dataset.device = name;
    const header = make('th');
    header.scope = 'row';
    const text = make('bdi', '', name);
    header.append(text);
    if (isOwn) header.append(' ', make('span', 'you', 'this browser'));
    const cells = ['presence', 'number', 'number', 'number age'].map((className) => make('td', className));
    row.append(header, ...cells);
    const entry = { row, cells };
    this.#rows.set(name, entry);
    return entry;
  }
}

/** @param {HTMLElement | undefined} cell @param {number} count */
function writeCount(cell, count) {
  if (!cell) return;
  const isLong = count >= SHORT_FROM;
  write(cell, isLong ? short(count) : whole(count));
  attribute(cell, 'title', isLong ? whole(count) : undefined);
}
