// @ts-check
/** The table of a room's devices. A row is made once, and only what changed in it is written. */
import { attribute, element, make, show, write } from './dom.js';
import { age, short, whole } from './format.js';
import { Rows } from './rows.js';

/** @typedef {{ row: HTMLElement, header: HTMLElement, cells: HTMLElement[], sign?: TroubleSign }} Row */

/** Rows that the table draws; the rest is said in a sentence. */
const MAX_ROWS = 200;
const SHORT_FROM = 10_000_000;

export class DeviceTable {
  /** @type {Rows<import('./room.js').Device, Row>} */
  #rows;
  #room;
  #remove;

  /** @param {import('./room.js').Room} room @param {(device: string) => void} remove called when somebody wants a device removed */
  constructor(room, remove) {
    this.#room = room;
    this.#remove = remove;
    const make = (/** @type {import('./room.js').Device} */ { name }) => this.#make(name, name === room.counter.device);
    this.#rows = new Rows(element('devices'), ({ name }) => name, make);
  }

  draw() {
    const { isKnown, isLive, deviceCount } = this.#room;
    for (const [entry, { presence, count, changedAt, trouble }] of this.#rows.fit(this.#room.devices(MAX_ROWS))) {
      const { cells } = entry;
      const [presenceCell, redCell, blueCell, ageCell] = cells;
      const known = isLive ? presence : undefined;
      if (presenceCell) {
        write(presenceCell, known ?? '–');
        attribute(presenceCell, 'data-presence', known ?? 'unknown');
      }
      writeCount(redCell, count.red);
      writeCount(blueCell, count.blue);
      write(ageCell, isLive && changedAt > 0 ? age(this.#room.clock.age_ms(changedAt)) : '–');
      if (trouble) {
        entry.sign ??= new TroubleSign(entry.header);
        entry.sign.draw(trouble, isLive ? age(this.#room.clock.age_ms(trouble.at)) : undefined);
      } else if (entry.sign) {
        entry.sign.remove();
        delete entry.sign;
      }
    }
    show('devices-tally', isKnown ? whole(deviceCount) : '');
    const rest = deviceCount - MAX_ROWS;
    const more = rest > 0 ? `and ${whole(rest)} more` : '';
    const none = deviceCount ? more : 'No device has clicked here yet.';
    show('devices-note', isKnown ? none : 'Waiting for the hub…');
  }

  /** @param {string} name @param {boolean} isOwn @returns {Row} */
  #make(name, isOwn) {
    const row = make('tr');
    row.dataset.device = name;
    const header = make('th');
    header.scope = 'row';
    const text = make('bdi', '', name);
    header.append(text);
    if (isOwn) header.append(' ', make('span', 'you', 'this browser'));
    const cells = ['presence', 'number', 'number', 'number age'].map((className) => make('td', className));
    const remove = make('button', 'remove', '×');
    remove.type = 'button';
    remove.title = `Remove ${name}`;
    remove.setAttribute('aria-label', `Remove ${name}`);
    remove.addEventListener('click', () => this.#remove(name));
    const last = make('td');
    last.append(remove);
    row.append(header, ...cells, last);
    return { row, header, cells };
  }
}

/** A sign beside a device's name with the number of its malformed reports; opened, it says what is wrong. */
class TroubleSign {
  #details = make('details', 'sign');
  #count = make('span');
  #words = make('span', 'unseen');
  #reason = make('p');

  /** @param {HTMLElement} place */
  constructor(place) {
    const summary = make('summary');
    const mark = make('span', 'mark', '!');
    mark.setAttribute('aria-hidden', 'true');
    summary.append(mark, this.#count, this.#words);
    this.#details.append(summary, this.#reason);
    place.append(' ', this.#details);
  }

  /** @param {import('./room.js').Trouble} trouble @param {string | undefined} ago undefined: not known now */
  draw({ malformed, reason }, ago) {
    write(this.#count, short(malformed));
    write(this.#words, malformed === 1 ? ' malformed report' : ' malformed reports');
    const when = ago === undefined ? 'The last one' : ago === 'now' ? 'The last one, just now' : `The last one, ${ago} ago`;
    write(this.#reason, `${when}: ${reason}`);
    attribute(this.#details, 'title', `${whole(malformed)} malformed since the hub’s start. ${reason}`);
  }

  remove() {
    this.#details.remove();
  }
}

/** @param {HTMLElement | undefined} cell @param {number} count */
function writeCount(cell, count) {
  if (!cell) return;
  const isLong = count >= SHORT_FROM;
  write(cell, isLong ? short(count) : whole(count));
  attribute(cell, 'title', isLong ? whole(count) : undefined);
}
