// @ts-check
/** One topic in full: its bytes as they were published, in three views, and the way to clear it. */
import { attribute, element, elementOf, show } from './dom.js';
import { age, size, whole } from './format.js';
import { bytesOf, dumpOf, jsonOf, textOf } from './payload.js';

/** @typedef {import('./latchbus.js').Message} Message */
/** @typedef {import('./payload.js').View} View */
/** @typedef {import('./tree.js').TopicNode} TopicNode */

const VIEWS = /** @type {View[]} */ (['json', 'text', 'hex']);
const timeFormat = new Intl.DateTimeFormat(undefined, { dateStyle: 'short', timeStyle: 'medium' });

export class Inspector {
  /** @type {string | undefined} */
  topic;
  #bus;
  #clock;
  /** @type {Message | undefined} */
  #message;
  #updates = 0;
  /** Of the message. @type {Uint8Array | undefined} */
  #payload;
  /** Chosen by hand; otherwise the first that fits. @type {View | undefined} */
  #view;

  /**
   * @param {import('./latchbus.js').Bus} bus
   * @param {import('./clock.js').HubClock} clock
   * @param {(topic: string, view: View, payload: Uint8Array) => void} onEdit
   */
  constructor(bus, clock, onEdit) {
    this.#bus = bus;
    this.#clock = clock;
    for (const view of VIEWS) {
      element(`view-${view}`).addEventListener('change', () => {
        this.#view = view;
        this.#drawPayload();
      });
    }
    element('edit').addEventListener('click', () => {
      if (this.topic === undefined || !this.#payload) return;
      const view = this.#fitting();
      const isNoJson = view === 'json' && jsonOf(this.#payload) === undefined;
      onEdit(this.topic, isNoJson ? 'text' : view, this.#payload);
    });
    element('clear').addEventListener('click', () => this.#ask(true));
    element('clear-no').addEventListener('click', () => this.#ask(false));
    element('clear-yes').addEventListener('click', () => void this.#clear());
  }

  /** @param {string} topic @param {TopicNode | undefined} node */
  select(topic, node) {
    if (topic !== this.topic) {
      this.topic = topic;
      element('confirm').hidden = true;
      element('clear').hidden = false;
      show('clear-outcome', '');
    }
    this.update(node);
  }

  /** The topic was given a message, or has lost its value. @param {TopicNode | undefined} node */
  update(node) {
    this.#message = node?.message;
    this.#updates = node?.updates ?? 0;
    this.#payload = this.#message && bytesOf(this.#message);
    this.draw();
  }

  draw() {
    const message = this.#message;
    element('nothing').hidden = this.topic !== undefined;
    element('inspected').hidden = this.topic === undefined;
    show('topic', this.topic ?? '');
    show('revision', message ? whole(message.rev) : '–');
    this.drawAge();
    show('size', message ? size(message.bytes ?? 0) : '–');
    show('updates', message ? whole(this.#updates) : '–');
    const state = message?.event ? 'an event: not kept, late subscribers do not get it' : 'kept';
    show('kept', message ? state : 'no value');
    for (const id of ['edit', 'clear']) attribute(element(id), 'disabled', message && !message.event ? undefined : '');
    this.#drawPayload();
  }

  drawAge() {
    const message = this.#message;
    show('changed', message ? `${age(this.#clock.age_ms(message.at))} · ${timeFormat.format(message.at)}` : '–');
  }

  #drawPayload() {
    const bytes = this.#payload;
    const view = this.#fitting();
    for (const each of VIEWS) elementOf(`view-${each}`, HTMLInputElement).checked = each === view;
    /** @type {Record<View, (bytes: Uint8Array) => string | undefined>} */
    const views = { json: jsonOf, text: textOf, hex: dumpOf };
    const text = bytes ? views[view](bytes) : '';
    show('payload', text ?? (view === 'json' ? 'Not JSON.' : 'Not UTF-8 text.'));
  }

  /** @returns {View} */
  #fitting() {
    if (this.#view) return this.#view;
    const bytes = this.#payload;
    if (!bytes || jsonOf(bytes) !== undefined) return 'json';
    return textOf(bytes) === undefined ? 'hex' : 'text';
  }

  /** @param {boolean} isAsked */
  #ask(isAsked) {
    element('confirm').hidden = !isAsked;
    element('clear').hidden = isAsked;
    element(isAsked ? 'clear-no' : 'clear').focus();
    show('clear-outcome', '');
  }

  async #clear() {
    const { topic } = this;
    if (topic === undefined) return;
    this.#ask(false);
    try {
      const { rev } = await this.#bus.clear(topic);
      show('clear-outcome', `Cleared at revision ${whole(rev)}.`);
    } catch (error) {
      show('clear-outcome', problemOf(error));
    }
  }
}

/** What a refused publish means. @param {unknown} error */
export function problemOf(error) {
  const { code, message } = /** @type {import('./latchbus.js').BusError} */ (error);
  if (code === 'disconnected') return 'Not known: there is no connection to the hub.';
  return `Refused (${code}): ${message}`;
}
