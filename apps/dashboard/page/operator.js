// @ts-check
/** What an administrator does with a room. It is asked about first, and can be undone within a minute. */
import { api, problemOf } from './api.js';
import { ask } from './ask.js';
import { element, show } from './dom.js';

/** How long the server can undo it. */
const UNDO_MS = 60_000;

export class Operator {
  #room;
  #path;
  #undo = element('undo');
  /** What can be undone. @type {string | undefined} */
  #id;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {string} room */
  constructor(room) {
    this.#room = room;
    this.#path = `api/v1/rooms/${encodeURIComponent(room)}`;
    element('reset').addEventListener('click', () => void this.reset());
    this.#undo.addEventListener('click', () => void this.#takeBack());
  }

  async reset() {
    const text = 'All clicks of the room go. What devices have not reported yet counts from here on.';
    if (!(await ask('Reset room', this.#room, text, 'Reset'))) return;
    await this.#do('POST', `${this.#path}/reset`, `Room ${this.#room} was reset.`);
  }

  /** @param {string} device */
  async remove(device) {
    const text = 'Its clicks go with it. It comes back with its next click.';
    if (!(await ask('Remove', device, text, 'Remove'))) return;
    await this.#do('DELETE', `${this.#path}/devices/${encodeURIComponent(device)}`, `${device} was removed.`);
  }

  async #takeBack() {
    const id = this.#id;
    if (id) await this.#do('POST', `api/v1/undo/${id}`, 'Undone.');
  }

  /** @param {string} method @param {string} path @param {string} done */
  async #do(method, path, done) {
    clearTimeout(this.#timer);
    this.#offer(undefined);
    try {
      const answer = await api(path, method);
      show('operated', done);
      this.#offer(answer.undo_until ? answer.id : undefined);
    } catch (error) {
      show('operated', problemOf(error));
    }
    this.#timer = setTimeout(() => {
      show('operated', '');
      this.#offer(undefined);
    }, UNDO_MS);
  }

  /** @param {string | undefined} id */
  #offer(id) {
    this.#id = id;
    this.#undo.hidden = !id;
  }
}
