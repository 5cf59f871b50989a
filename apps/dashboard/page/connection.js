// @ts-check
/** The lamp in the header: connecting, live with its round trip, offline with the time to the next attempt. */
import { element, show } from './dom.js';
import { whole } from './format.js';

const COUNTDOWN_MS = 250;
const NAMES = { live: 'Live', connecting: 'Connecting', offline: 'Offline', closed: 'Closed' };

export class ConnectionLamp {
  #bus;
  #isLive;
  #offlineText;
  #announced = 'connecting';
  #wasLive = false;
  /** @type {ReturnType<typeof setInterval> | undefined} runs only while there is something to count down */
  #countdown;

  /**
   * @param {import('./latchbus.js').Bus} bus
   * @param {() => boolean} isLive what the page shows is up to date
   * @param {string} offlineText for a screen reader when the connection goes
   */
  constructor(bus, isLive, offlineText) {
    this.#bus = bus;
    this.#isLive = isLive;
    this.#offlineText = offlineText;
    element('retry').addEventListener('click', () => bus.retry());
    bus.state.subscribe(({ phase }) => {
      clearInterval(this.#countdown);
      if (phase === 'offline') this.#countdown = setInterval(() => this.draw(), COUNTDOWN_MS);
      this.draw();
    });
  }

  /** Live means that the hub has said all it knows: before that it is still connecting. */
  get phase() {
    const { phase } = this.#bus.state.value ?? { phase: 'connecting' };
    return phase === 'live' && !this.#isLive() ? 'connecting' : phase;
  }

  draw() {
    const { phase } = this;
    const { retryAt = 0, rtt_ms } = this.#bus.state.value ?? {};
    document.body.dataset.phase = phase;
    this.#wasLive ||= phase === 'live';
    // The server is there, and does not want this page as it is.
    const isSignedOut = phase !== 'live' && document.body.dataset.signedOut === 'true';
    show('phase', isSignedOut ? 'Signed out' : NAMES[phase]);
    const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
    const ping = phase === 'live' && rtt_ms !== undefined ? `${whole(Math.ceil(rtt_ms))} ms` : '';
    show('detail', isSignedOut ? '' : phase === 'offline' ? `next try in ${seconds} s` : ping);
    element('detail').title = ping && 'round trip of the last ping';
    // It stays while an attempt runs, so that nothing flickers and the focus is not lost.
    element('retry').hidden = isSignedOut || (phase !== 'offline' && !(phase === 'connecting' && this.#wasLive));
    if (phase === this.#announced || phase === 'connecting') return;
    if (phase === 'offline' || this.#announced === 'offline') {
      show('announce', phase === 'live' ? 'Live again' : this.#offlineText);
    }
    this.#announced = phase;
  }
}
