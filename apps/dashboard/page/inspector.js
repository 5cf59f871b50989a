// @ts-check
/** One topic in full: its bytes as the hub keeps them, in three views, and the way to clear it. */
import { attribute, element, elementOf, show } from './dom.js';
import { age, size, whole } from './format.js';
import { bytesOf, dumpOf, jsonOf, textOf } from './payload.js';

/** @typedef {import('./latchbus.js').Message} Message */
/** @typedef {import('./payload.js').View} View */
/** @typedef {import('./tree.js').TopicNode} TopicNode */

/** A topic that changes all the time is read again this often. */
const FETCH_MS = 300;
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
  /** What is shown, and of which revision. @type {{ rev: number, bytes: Uint8Array } | undefined} */
  #payload;
  /** Chosen by hand; otherwise the first that fits. @type {View | undefined} */
  #view;
  #isFetching = false;
  #lastFetch_ms = -Infinity;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {import('./latchbus.js').Bus} bus
   * @param {import('./clock.js').HubClock} clock
   * @param {(topic: string, view: View, text: string) => void} onEdit
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
      const { bytes } = this.#payload;
      const view = this.#fitting();
      const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
      onEdit(this.topic, view, view === 'hex' ? hex : ((view === 'json' ? jsonOf(bytes) : textOf(bytes)) ?? ''));
    });
    element('clear').addEventListener('click', () => this.#ask(true));
    element('clear-no').addEventListener('click', () => this.#ask(false));
    element('clear-yes').addEventListener('click', () => void this.#clear());
  }

  /** @param {string} topic @param {TopicNode | undefined} node */
  select(topic, node) {
    if (topic !== this.topic) {
      this.topic = topic;
      this.#payload = undefined;
      this.#lastFetch_ms = -Infinity;
      element('confirm').hidden = true;
      element('clear').hidden = false;
      show('clear-outcome', '');
    }
    this.update(node);
  }

  /** The topic was given a message, or has lost its value. @param {TopicNode | undefined} node */
  update(node) {
    const message = node?.message;
    this.#message = message;
    this.#updates = node?.updates ?? 0;
    // The hub keeps no bytes of an event.
    if (message?.event) this.#payload = { rev: message.rev, bytes: bytesOf(message.value) };
    else if (message && message.rev !== this.#payload?.rev) this.#fetchSoon();
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
    const bytes = this.#message && this.#payload?.bytes;
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
    const { bytes } = this.#payload ?? {};
    if (!bytes || jsonOf(bytes) !== undefined) return 'json';
    return textOf(bytes) === undefined ? 'hex' : 'text';
  }

  #fetchSoon() {
    clearTimeout(this.#timer);
    const wait_ms = Math.max(0, this.#lastFetch_ms + FETCH_MS - performance.now());
    this.#timer = setTimeout(() => void this.#fetch(), wait_ms);
  }

  /** The message says what the value is; only the hub knows its bytes. */
  async #fetch() {
    const { topic } = this;
    if (topic === undefined || !this.#message || this.#message.event || this.#isFetching) return;
    this.#isFetching = true;
    this.#lastFetch_ms = performance.now();
    const message = this.#message;
    try {
      // With its slashes escaped, no level of a topic is taken for a step in a path.
      const response = await fetch(`/api/v1/topics/${encodeURIComponent(topic)}`);
      if (topic !== this.topic) return;
      if (response.ok) {
        const bytes = new Uint8Array(await response.arrayBuffer());
        const rev = Number(/:(\d+)"$/.exec(response.headers.get('etag') ?? '')?.[1]);
        this.#payload = { rev, bytes };
      }
      this.draw();
    } catch {
      // Offline: the next message, after the reconnect, asks again.
    } finally {
      this.#isFetching = false;
      // It has changed while it was read.
      if (topic !== this.topic || this.#message !== message) this.#fetchSoon();
    }
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
