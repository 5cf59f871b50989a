// @ts-check
/** The scoreboard: draws a room, and turns presses of the two buttons into clicks. */
import { connect } from './latchbus.js';
import { Room, isRoomName } from './room.js';

/** @typedef {keyof import('./count.js').Count} Color */

/** @type {Color[]} */
const COLORS = ['red', 'blue'];
const NAMES = { red: 'Red', blue: 'Blue' };
/** Rows that the table draws; the rest is said in a sentence. */
const MAX_ROWS = 200;
const COUNTDOWN_MS = 250;
/** After the last own click: say the score once, not at each click. */
const ANNOUNCE_MS = 1_200;

const whole = new Intl.NumberFormat();
/** For the table, where a long number would push out its neighbours. */
const short = new Intl.NumberFormat(undefined, { notation: 'compact', maximumFractionDigits: 2 });
const SHORT_FROM = 10_000_000;
const tenth = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
/** Between a share and its sign: never a line break. */
const PERCENT = '\u202f%';

/** @param {string} roomName */
function start(roomName) {
  document.title = `${roomName} · Latchbus`;
  show('room', roomName);
  const bus = connect();
  let isDue = false;
  const room = new Room(bus, roomName, () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      draw();
    });
  });

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let announcement;
  for (const color of COLORS) {
    const button = element(color);
    button.addEventListener('click', () => {
      room.counter.click(color);
      clearTimeout(announcement);
      announcement = setTimeout(announceScore, ANNOUNCE_MS);
    });
    // A key that is held down is one click, like a finger that rests.
    button.addEventListener('keydown', (event) => event.repeat && event.preventDefault());
  }
  element('retry').addEventListener('click', () => bus.retry());
  addEventListener('pagehide', () => room.counter.suspend());
  addEventListener('pageshow', (event) => event.persisted && room.counter.resume());

  /** @type {ReturnType<typeof setInterval> | undefined} runs only while there is something to count down */
  let countdown;
  bus.state.subscribe(({ phase }) => {
    clearInterval(countdown);
    if (phase === 'offline') countdown = setInterval(drawConnection, COUNTDOWN_MS);
  });

  let announcedPhase = 'connecting';
  const rows = new Rows(element('devices'));
  draw();

  function announceScore() {
    const { red, blue } = room.values;
    show('announce', `Red ${whole.format(red)}, blue ${whole.format(blue)}`);
  }

  function phase() {
    const { phase: connection } = bus.state.value ?? { phase: 'connecting' };
    return connection === 'live' && !room.isLive ? 'connecting' : connection;
  }

  function draw() {
    drawConnection();
    drawScore();
    drawDevices();
  }

  function drawConnection() {
    const now = phase();
    const { retryAt = 0, rtt_ms } = bus.state.value ?? {};
    document.body.dataset.phase = now;
    show('phase', { live: 'Live', connecting: 'Connecting', offline: 'Offline', closed: 'Closed' }[now]);
    const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
    const ping = now === 'live' && rtt_ms !== undefined ? `${whole.format(Math.ceil(rtt_ms))} ms` : '';
    show('detail', now === 'offline' ? `next try in ${seconds} s` : ping);
    // It stays while an attempt runs, so that nothing flickers and the focus is not lost.
    element('retry').hidden = now !== 'offline' && !(now === 'connecting' && room.isKnown);
    if (now !== announcedPhase && now !== 'connecting') {
      if (now === 'offline' || announcedPhase === 'offline') {
        show('announce', now === 'live' ? 'Live again' : 'Offline. Your clicks are kept.');
      }
      announcedPhase = now;
    }
  }

  function drawScore() {
    const { values, isKnown, isLive, counter } = room;
    const { pending } = counter;
    const total = values.red + values.blue;
    document.body.dataset.known = String(isKnown);
    const longest = Math.max(...COLORS.map((color) => whole.format(values[color]).length));
    // Both numbers in one size, so that neither colour looks larger for being shorter.
    element('main').style.setProperty('--digits', String(Math.max(3, longest)));
    const share = shares(values);
    for (const color of COLORS) {
      show(`${color}-count`, isKnown ? whole.format(values[color]) : '–');
      show(`${color}-pending`, pending[color] ? `${whole.format(pending[color])} unconfirmed` : '');
      show(`${color}-share`, isKnown ? tenth.format(share[color]) + PERCENT : '–');
    }
    const meter = element('meter');
    meter.style.setProperty('--red-share', String(share.red / 100));
    meter.setAttribute('aria-valuenow', String(share.red));
    const shareText = COLORS.map((color) => `${NAMES[color]} ${tenth.format(share[color])} percent`).join(', ');
    meter.setAttribute('aria-valuetext', isKnown ? (isLive ? shareText : `Last known: ${shareText}`) : 'not known yet');
    show('total', isKnown ? whole.format(total) : '–');
    show('rate', isLive && room.rate ? tenth.format(room.rate.red + room.rate.blue) : isLive ? tenth.format(0) : '–');
    show('pending', whole.format(pending.red + pending.blue));
    show('hint', hint(total));
  }

  /** @param {number} total */
  function hint(total) {
    const { refused } = room.counter;
    if (refused) return `The hub refused the last report (${refused}). Your clicks are kept and sent again.`;
    if (!room.isLive && room.isKnown)
      return 'This is the last known score. Your clicks are kept and sent when the hub is back.';
    if (phase() === 'offline') return 'The hub can’t be reached.';
    return room.isLive && total === 0 ? 'No clicks yet. Press red or blue.' : '';
  }

  function drawDevices() {
    const { devices, isKnown, isLive } = room;
    rows.draw(devices.slice(0, MAX_ROWS), room.counter.device, isLive);
    show('devices-tally', isKnown ? whole.format(devices.length) : '');
    const rest = devices.length - MAX_ROWS;
    const more = rest > 0 ? `and ${whole.format(rest)} more` : '';
    show(
      'devices-note',
      isKnown ? (devices.length ? more : 'No device has clicked here yet.') : 'Waiting for the hub…',
    );
  }
}

/**
 * Percent with one decimal that sum to 100.0, like the hub's `share`, but of the numbers that are on the screen.
 * @param {import('./count.js').Count} values
 */
function shares({ red, blue }) {
  const redTenths = red + blue > 0 ? Math.round((red / (red + blue)) * 1000) : 500;
  return { red: redTenths / 10, blue: (1000 - redTenths) / 10 };
}

/** Table rows by device: a row is made once and only what changed is written. */
class Rows {
  /** @type {Map<string, { row: HTMLElement, cells: HTMLElement[] }>} */
  #rows = new Map();
  #body;

  /** @param {HTMLElement} body */
  constructor(body) {
    this.#body = body;
  }

  /** @param {import('./room.js').Device[]} devices @param {string} own @param {boolean} isLive */
  draw(devices, own, isLive) {
    const gone = new Set(this.#rows.keys());
    /** @type {HTMLElement | null} */
    let previous = null;
    for (const { name, presence, count } of devices) {
      gone.delete(name);
      const { row, cells } = this.#rows.get(name) ?? this.#make(name, name === own);
      const [presenceCell, redCell, blueCell] = cells;
      const known = isLive ? presence : undefined;
      if (presenceCell) {
        write(presenceCell, known ?? '–');
        presenceCell.dataset.presence = known ?? 'unknown';
      }
      writeCount(redCell, count.red);
      writeCount(blueCell, count.blue);
      /** @type {ChildNode | null} */
      const place = previous ? previous.nextSibling : this.#body.firstChild;
      if (place !== row) this.#body.insertBefore(row, place);
      previous = row;
    }
    for (const name of gone) {
      this.#rows.get(name)?.row.remove();
      this.#rows.delete(name);
    }
  }

  /** @param {string} name @param {boolean} isOwn */
  #make(name, isOwn) {
    const row = document.createElement('tr');
    row.dataset.device = name;
    const header = document.createElement('th');
    header.scope = 'row';
    header.textContent = name;
    if (isOwn) {
      const you = document.createElement('span');
      you.className = 'you';
      you.textContent = 'this browser';
      header.append(' ', you);
    }
    const cells = ['presence', 'number', 'number'].map((className) => {
      const cell = document.createElement('td');
      cell.className = className;
      return cell;
    });
    row.append(header, ...cells);
    this.#rows.set(name, { row, cells });
    return { row, cells };
  }
}

/** @param {string} id @returns {HTMLElement} */
function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element ${id}`);
  return found;
}

/** @param {string} id @param {string} text */
function show(id, text) {
  write(element(id), text);
}

/** @param {HTMLElement | undefined} cell @param {number} count */
function writeCount(cell, count) {
  if (!cell) return;
  const isLong = count >= SHORT_FROM;
  write(cell, (isLong ? short : whole).format(count));
  const title = isLong ? whole.format(count) : '';
  if (cell.title !== title) cell.title = title;
}

/**
 * Writes only a change: an untouched node costs no layout, and a live region says nothing.
 * @param {HTMLElement | undefined} node @param {string} text
 */
function write(node, text) {
  if (node && node.textContent !== text) node.textContent = text;
}

const name = new URLSearchParams(location.search).get('room') || 'main';
if (isRoomName(name)) {
  start(name);
} else {
  document.body.dataset.phase = 'refused';
  element('room').textContent = '–';
  element('main').hidden = true;
  show('phase', '');
  const notice = element('notice');
  notice.hidden = false;
  notice.textContent =
    `“${name.slice(0, 80)}” can't be the name of a room. A name has 1 to 64 letters (A–Z), digits, dots, hyphens and ` +
    'underscores, and begins with a letter or a digit. ';
  const home = document.createElement('a');
  home.href = '/';
  home.textContent = 'Go to room main';
  notice.append(home);
}
