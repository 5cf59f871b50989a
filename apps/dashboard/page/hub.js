// @ts-check
/** The hub that has served this page: how the pages reach it, also below a base path and behind a proxy, and why they cannot. */
import { Account, signInLink } from './account.js';
import { element } from './dom.js';
import { connect } from './latchbus.js';

const TICKET = 'api/v1/ticket';
/** Attempts that may fail before the page says why: one does while the hub starts. */
const PATIENT = 2;

/**
 * A WebSocket that shows a ticket: a proxy has hidden from the hub by which name the page came, and only a page of the same
 * origin can read a ticket.
 */
class TicketSocket {
  /** @type {((event: MessageEvent) => void) | undefined} */
  onmessage;
  /** @type {((event?: CloseEvent) => void) | undefined} */
  onclose;
  /** @type {WebSocket | undefined} */
  #socket;
  #isClosed = false;

  /** @param {string} url @param {string} protocol */
  constructor(url, protocol) {
    void this.#open(url, protocol);
  }

  /** @param {string} url @param {string} protocol */
  async #open(url, protocol) {
    const { ticket } = await askTicket();
    if (this.#isClosed) return;
    if (ticket === undefined) return this.onclose?.();
    this.#socket = new WebSocket(`${url}?ticket=${ticket}`, protocol);
    this.#socket.onmessage = (event) => this.onmessage?.(event);
    this.#socket.onclose = (event) => this.onclose?.(event);
  }

  /** @param {string} data */
  send(data) {
    this.#socket?.send(data);
  }

  close() {
    this.#isClosed = true;
    this.#socket?.close();
  }
}

/** @returns {Promise<{ ticket?: string, refused?: string }>} neither where the hub cannot be reached */
async function askTicket() {
  try {
    const response = await fetch(TICKET, { method: 'POST' });
    const { ticket, error } = await response.json();
    return { ticket, refused: error?.message };
  } catch {
    return {};
  }
}

// All modules have come.
element('stopped').hidden = true;

/** The bus of the hub that has served this page. */
export function connectHub() {
  const { host } = document.documentElement.dataset;
  const environment = host === location.host ? {} : { WebSocket: /** @type {any} */ (TicketSocket) };
  const bus = connect(new URL('ws', document.baseURI), environment);
  const account = new Account(bus);
  let failures = 0;
  bus.state.subscribe(({ phase }) => {
    if (account.isSignedOut) return askToSignIn();
    if (phase === 'live') failures = -Infinity;
    if (phase === 'offline' && ++failures === PATIENT) void explain();
    if (phase !== 'live') return;
    element('stopped').hidden = true;
    delete element('stopped').dataset.signIn;
  });
  return bus;
}

/** The sign-in has ended, here or in another tab. */
function askToSignIn() {
  const notice = element('stopped');
  if (!notice.hidden && notice.dataset.signIn !== undefined) return;
  notice.dataset.signIn = '';
  notice.replaceChildren('You are signed out. ', signInLink());
  notice.classList.remove('early');
  notice.hidden = false;
}

/** The hub has served the page, and no connection was ever made. */
async function explain() {
  const { ticket, refused } = await askTicket();
  if (refused === undefined && ticket === undefined) return;
  const notice = element('stopped');
  notice.textContent = refused
    ? `Latchbus refuses this page: ${refused}.`
    : 'Latchbus answers, but no WebSocket can be opened: a proxy on the way may not pass WebSockets on (the headers ' +
      'Upgrade and Connection).';
  notice.classList.remove('early');
  notice.hidden = false;
}
