// @ts-check
/** The scoreboard: draws a room, and turns presses of the two buttons into clicks. */
import { drawChart } from './chart.js';
import { ConnectionLamp } from './connection.js';
import { DeviceTable } from './devices.js';
import { attribute, element, make, oncePerFrame, show, whileVisible } from './dom.js';
import { rate as rateText, tenth, whole } from './format.js';
import { askAbout, mayPublish, me } from './account.js';
import { connectHub } from './hub.js';
import { Operator } from './operator.js';
import { Room, isRoomName } from './room.js';
import { RoomSwitcher, roomLink } from './rooms.js';

/** @typedef {keyof import('./count.js').Count} Color */

/** @type {Color[]} */
const COLORS = ['red', 'blue'];
const NAMES = { red: 'Red', blue: 'Blue' };
const TICK_MS = 1_000;
/** The table is read, not watched: what changes in it is shown a few times a second. */
const TABLE_MS = 250;
/** The chart of a room in which nothing happens stands still; it is looked at again this often. */
const QUIET_TICKS = 10;
/** After the last own click: say the score once, not at each click. */
const ANNOUNCE_MS = 1_200;
const TROUBLE_MS = 30_000;
/** Between a share and its sign: never a line break. */
const PERCENT = '\u202f%';

/** @param {string} roomName */
function start(roomName) {
  document.title = `${roomName} · Latchbus`;
  show('room', roomName);
  show('title', `Scoreboard, room ${roomName}`);
  let wasLive = false;
  const drawSoon = oncePerFrame(() => {
    lamp.draw();
    drawScore();
    if (wasLive !== room.isLive) drawChart(room.rates, room.isLive);
    wasLive = room.isLive;
  });
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let tableTimer;
  const bus = connectHub();
  const room = new Room(bus, roomName, () => {
    drawSoon();
    drawTableSoon();
  });
  // Of the topics that this page will publish its clicks to, any will do.
  const ownTopic = `clicks/${roomName}/${room.counter.device}/count/1-00000000`;
  askAbout(ownTopic);
  me.subscribe(() => offer());
  room.rates.load(roomName);
  const lamp = new ConnectionLamp(bus, () => room.isLive, 'Offline. Your clicks are kept.');
  const operator = new Operator(roomName);
  const table = new DeviceTable(room, (device) => void operator.remove(device));
  new RoomSwitcher(bus, roomName);

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
  addEventListener('pagehide', () => {
    room.counter.suspend();
    room.rates.save(roomName);
  });
  addEventListener('pageshow', (event) => event.persisted && room.counter.resume());

  let ticks = 0;
  /** Malformed reports over all rooms. */
  let malformed = 0;
  whileVisible(() => {
    if (!room.rates.isFlat || ticks++ % QUIET_TICKS === 0) drawChart(room.rates, room.isLive);
    drawTableSoon();
  }, TICK_MS);
  whileVisible(() => void fetchTrouble(), TROUBLE_MS);
  offer();

  /** Whoever may not click sees numbers that are no buttons. */
  function offer() {
    const mayClick = me.value?.publish[ownTopic] ?? mayPublish();
    for (const color of COLORS) attribute(element(color), 'disabled', mayClick ? undefined : '');
    document.body.dataset.clicks = String(mayClick);
    drawSoon();
  }

  function announceScore() {
    const { red, blue } = room.values;
    show('announce', `Red ${whole(red)}, blue ${whole(blue)}`);
  }

  function drawTableSoon() {
    tableTimer ??= setTimeout(() => {
      tableTimer = undefined;
      requestAnimationFrame(() => {
        table.draw();
        drawTrouble();
      });
    }, TABLE_MS);
  }

  function drawScore() {
    const { values, isKnown, isLive, counter, rate } = room;
    const { pending } = counter;
    const total = values.red + values.blue;
    document.body.dataset.known = String(isKnown);
    const longest = Math.max(...COLORS.map((color) => whole(values[color]).length));
    // Both numbers in one size, so that neither colour looks larger for being shorter.
    element('main').style.setProperty('--digits', String(Math.max(3, longest)));
    const share = shares(values);
    for (const color of COLORS) {
      show(`${color}-count`, isKnown ? whole(values[color]) : '–');
      show(`${color}-pending`, pending[color] ? `${whole(pending[color])} unconfirmed` : '');
      show(`${color}-share`, isKnown ? tenth(share[color]) + PERCENT : '–');
      show(`${color}-rate`, isLive ? rateText(rate?.[color] ?? 0) : '–');
    }
    const meter = element('meter');
    meter.style.setProperty('--red-share', String(share.red / 100));
    attribute(meter, 'aria-valuenow', String(share.red));
    const shareText = COLORS.map((color) => `${NAMES[color]} ${tenth(share[color])} percent`).join(', ');
    attribute(meter, 'aria-valuetext', isKnown ? (isLive ? shareText : `Last known: ${shareText}`) : 'not known yet');
    show('total', isKnown ? whole(total) : '–');
    show('rate', isLive ? rateText((rate?.red ?? 0) + (rate?.blue ?? 0)) : '–');
    show('pending', whole(pending.red + pending.blue));
    show('hint', hint(total));
  }

  /** @param {number} total */
  function hint(total) {
    const { refused } = room.counter;
    if (document.body.dataset.signedOut === 'true')
      return 'You are signed out. Your clicks are kept and sent when you have signed in.';
    if (document.body.dataset.clicks === 'false' && room.isLive) return 'You can watch here, and not click.';
    if (refused) return `The hub refused the last report (${refused}). Your clicks are kept and sent again.`;
    if (!room.isLive && room.isKnown)
      return 'This is the last known score. Your clicks are kept and sent when the hub is back.';
    if (lamp.phase === 'offline') return 'The hub can’t be reached.';
    return room.isLive && total === 0 ? 'No clicks yet. Press red or blue.' : '';
  }

  /** What the table does not show: malformed reports of other rooms, and those that name no device. */
  function drawTrouble() {
    if (!room.isLive) return;
    const n = malformed - room.malformed;
    const reports = `${whole(n)} malformed ${n === 1 ? 'report' : 'reports'}`;
    const text = `${reports} beside these, in other rooms or of no device. The hub’s log names the topics.`;
    show('devices-trouble', n > 0 ? text : '');
  }

  async function fetchTrouble() {
    if (room.isKnown && !room.isLive) return;
    try {
      const response = await fetch('metrics');
      const [, count] = /^latchbus_clicks_malformed_total (\d+)$/m.exec(await response.text()) ?? [];
      malformed = Number(count ?? 0);
      drawTableSoon();
    } catch {
      // Offline: the lamp says so.
    }
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

const name = new URLSearchParams(location.search).get('room') || 'main';
if (isRoomName(name)) {
  start(name);
} else {
  document.body.dataset.phase = 'refused';
  element('rooms').hidden = true;
  element('main').hidden = true;
  show('phase', '');
  const notice = element('notice');
  notice.hidden = false;
  notice.textContent =
    `“${name.slice(0, 80)}” can't be the name of a room. A name has 1 to 64 letters (A–Z), digits, dots, hyphens and ` +
    'underscores, and begins with a letter or a digit. ';
  const home = make('a', '', 'Go to room main');
  home.href = roomLink('main');
  notice.append(home);
}
