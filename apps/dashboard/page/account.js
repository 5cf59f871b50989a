// @ts-check
/** Who uses this page: the name in its header, the way in and out, and what is not offered to whom. */
import { make } from './dom.js';
import { Latch } from './latchbus.js';

/**
 * @typedef {object} Me
 * @property {string | null} user null: nobody in particular
 * @property {boolean} admin
 * @property {boolean} may_publish anything
 * @property {Record<string, boolean>} publish the topics that were asked about
 * @property {boolean} sign_in there are users, so one can sign in
 * @property {boolean} session and out
 */

/** A page that is open is in use, and the session behind it does not end for being idle. */
const RENEW_MS = 3_600_000;

/** What the server last said of who uses this page. @type {Latch<Me>} */
export const me = new Latch();

/** @type {string[]} */
let asked = [];

/** @param {string[]} topics `me` says whether state may be published to them: for before the first connection */
export function askAbout(...topics) {
  asked = topics;
}

/** Whether this page may publish at all; where that is not known, what the server thought when it sent the page. */
export function mayPublish() {
  return me.value?.may_publish ?? document.documentElement.dataset.publishes !== 'false';
}

export class Account {
  /** There was a sign-in, and it has ended. */
  isSignedOut = false;
  #place = make('p', 'account');
  #drawn = '';

  /** @param {import('./latchbus.js').Bus} bus */
  constructor(bus) {
    document.querySelector('.connection')?.prepend(this.#place);
    bus.state.subscribe(({ phase, signedOut }) => {
      if (signedOut) this.isSignedOut = true;
      if (phase === 'live') this.isSignedOut = false;
      document.body.dataset.signedOut = String(this.isSignedOut);
      if (phase === 'live') void this.#ask();
      this.#draw();
    });
    setInterval(() => bus.state.value?.phase === 'live' && void this.#ask(), RENEW_MS);
  }

  async #ask() {
    const query = new URLSearchParams([...asked.map((topic) => ['publish', topic]), ['retain', 'true']]);
    try {
      const response = await fetch(`api/v1/me?${query}`);
      if (!response.ok) return;
      const answer = /** @type {Me} */ (await response.json());
      // What somebody else saw is not for the next one.
      if (me.value && me.value.user !== answer.user) return location.reload();
      const { dataset } = document.documentElement;
      dataset.admin = String(answer.admin);
      dataset.publishes = String(answer.may_publish);
      me.set(answer);
      this.#draw();
    } catch {
      // Offline: asked again with the next connection.
    }
  }

  #draw() {
    const { user, sign_in, session } = me.value ?? {};
    const name = this.isSignedOut ? '' : (user ?? '');
    const offers = this.isSignedOut || (sign_in && !user) ? 'in' : session ? 'out' : '';
    const drawn = `${offers} ${name}`;
    // What has the focus is left alone.
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    this.#place.replaceChildren();
    if (name) {
      const shown = make('span', 'user', name);
      shown.dir = 'auto';
      shown.title = name;
      this.#place.append(shown);
    }
    if (offers === 'in') this.#place.append(signInLink());
    if (offers === 'out') {
      const button = make('button', 'pill', 'Sign out');
      button.type = 'button';
      button.id = 'sign-out';
      button.addEventListener('click', () => void signOut());
      this.#place.append(button);
    }
  }
}

/** To the form, and from there back to this page. */
export function signInLink() {
  const link = make('a', '', 'Sign in');
  link.id = 'sign-in';
  const base = new URL(document.baseURI);
  const path = location.pathname.split('/').at(-1) ?? '';
  link.href = new URL(`sign-in?next=${encodeURIComponent(path + location.search)}`, base).href;
  return link;
}

async function signOut() {
  try {
    const response = await fetch('sign-out', { method: 'POST' });
    if (!response.ok) return;
  } catch {
    return;
  }
  // A guest stays here; anybody else is led to the form.
  location.reload();
}
