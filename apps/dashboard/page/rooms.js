// @ts-check
/** The room switcher: the rooms that the hub knows as links, and a way to a room that it does not know yet. */
import { element, elementOf, make, show, write } from './dom.js';
import { readCount, total } from './count.js';
import { whole } from './format.js';
import { isRoomName } from './room.js';

/** @typedef {import('./latchbus.js').Topic} Topic */

const FILTER = 'clicks/+/values';
/** As many as a hub admits unless it is told otherwise. */
const MAX_ROOMS = 1_000;
const order = new Intl.Collator('en', { numeric: true });

/** The room's own link: `main` is at home. @param {string} room */
export function roomLink(room) {
  return room === 'main' ? './' : `./?room=${encodeURIComponent(room)}`;
}

export class RoomSwitcher {
  #bus;
  #current;
  /** @type {Topic | undefined} only while the list can be seen */
  #topic;
  /** @type {Map<string, { item: HTMLElement, count: HTMLElement }>} */
  #items = new Map();

  /** @param {import('./latchbus.js').Bus} bus @param {string} current */
  constructor(bus, current) {
    this.#bus = bus;
    this.#current = current;
    const details = elementOf('rooms', HTMLDetailsElement);
    const input = elementOf('rooms-name', HTMLInputElement);
    details.addEventListener('toggle', () => (details.open ? this.#open() : this.#close()));
    details.addEventListener('keydown', ({ key }) => {
      if (key !== 'Escape' || !details.open) return;
      details.open = false;
      details.querySelector('summary')?.focus();
    });
    document.addEventListener('pointerdown', ({ target }) => {
      if (target instanceof Node && !details.contains(target)) details.open = false;
    });
    input.addEventListener('input', () => {
      const name = input.value.trim();
      input.setCustomValidity('');
      for (const [room, { item }] of this.#items) item.hidden = !room.toLowerCase().includes(name.toLowerCase());
    });
    element('rooms-form').addEventListener('submit', (event) => {
      event.preventDefault();
      const name = input.value.trim();
      if (isRoomName(name)) return location.assign(roomLink(name));
      input.setCustomValidity('1 to 64 letters (A–Z), digits, dots, hyphens and underscores; a letter or digit first');
      input.reportValidity();
    });
  }

  #open() {
    this.#topic = this.#bus.topic(FILTER, { maxRate: 1 });
    this.#draw();
    this.#topic.subscribe({ next: () => this.#draw(), synced: () => this.#draw() });
  }

  #close() {
    this.#topic?.close();
    this.#topic = undefined;
  }

  #draw() {
    const rooms = [...(this.#topic?.last.values() ?? [])].slice(0, MAX_ROOMS);
    for (const { topic, value } of rooms) {
      const room = topic.split('/')[1] ?? '';
      const count = readCount(value);
      if (!isRoomName(room) || !count) continue;
      write(this.#item(room).count, whole(total(count)));
    }
    if (isRoomName(this.#current)) this.#item(this.#current);
    show('rooms-note', this.#topic?.synced || this.#items.size > 1 ? '' : 'Waiting for the hub…');
  }

  /** @param {string} room */
  #item(room) {
    const known = this.#items.get(room);
    if (known) return known;
    const link = make('a', 'name', room);
    link.href = roomLink(room);
    if (room === this.#current) link.setAttribute('aria-current', 'page');
    const count = make('span', 'number', '0');
    const item = make('li');
    item.append(link, count);
    const after = [...this.#items].filter(([other]) => order.compare(other, room) > 0);
    const [next] = after.sort(([a], [b]) => order.compare(a, b));
    element('rooms-list').insertBefore(item, next?.[1].item ?? null);
    const entry = { item, count };
    this.#items.set(room, entry);
    return entry;
  }
}
