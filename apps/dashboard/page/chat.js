// @ts-check
/**
 * A chat room is a topic, `chat/<room>`, that retains its last messages: `/chat?room=lobby`. An example to copy. Every other client takes
 * part: `mosquitto_sub -t chat/lobby`, `mosquitto_pub -r -t chat/lobby -m hello`. Who types and who is there are events beside it.
 */
import { ConnectionLamp } from './connection.js';
import { element, elementOf, make, show } from './dom.js';
import { connectHub } from './hub.js';

const PAGE = 20;
const TYPING_MS = 3_000;
const HERE_MS = 20_000;
/** Who has not been heard for so long has left. */
const GONE_MS = 2.5 * HERE_MS;
const NAME = 'latchbus.chat.name';

const asked = new URLSearchParams(location.search).get('room') ?? '';
const room = /^[\w.-]{1,64}$/.test(asked) ? asked : 'lobby';
const topic = `chat/${room}`;
const bus = connectHub();
const log = element('log');
const earlier = elementOf('earlier', HTMLButtonElement);
const name = elementOf('name', HTMLInputElement);
const text = elementOf('text', HTMLInputElement);

/** What is shown, the oldest first. @type {import('./latchbus.js').Message[]} */
let shown = [];
/** When each was heard last, by name. @type {Map<string, number>} */
const present = new Map();
/** @type {Map<string, number>} */
const typing = new Map();

/** @param {any} value what MQTT's users write is plain text */
function said(value) {
  if (typeof value?.text === 'string') return { who: String(value.name ?? ''), what: value.text };
  return { who: '', what: typeof value === 'string' ? value : JSON.stringify(value) };
}

/** @param {import('./latchbus.js').Message} message */
function line({ value, at }) {
  const { who, what } = said(value);
  const item = make('p');
  const time = make('time', '', new Date(at).toLocaleTimeString([], { timeStyle: 'short' }));
  item.append(time, make('b', '', who || 'someone'), what);
  return item;
}

const messages = bus.topic(topic, { mode: 'every' });
messages.subscribe({
  next(message) {
    const last = shown.at(-1);
    // After a reset all of it comes again.
    if (message.cleared || (last?.epoch === message.epoch && message.rev <= last.rev)) return;
    const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    shown.push(message);
    log.append(line(message));
    if (!messages.synced) trim();
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  },
  synced: () => (log.scrollTop = log.scrollHeight),
  error: ({ message }) => show('trouble', message),
});

/** Of what comes first, the last page; what is before it is a click away. */
function trim() {
  if (shown.length <= PAGE) return;
  shown.shift();
  log.firstElementChild?.remove();
  earlier.hidden = false;
}

earlier.addEventListener('click', async () => {
  earlier.disabled = true;
  try {
    const page = await bus.history(topic, { before: shown[0]?.rev, limit: PAGE });
    shown = [...page.messages, ...shown];
    const below = log.scrollHeight - log.scrollTop;
    log.prepend(...page.messages.map(line));
    log.scrollTop = log.scrollHeight - below;
    earlier.hidden = !page.more;
  } catch (error) {
    show('trouble', String(error));
  }
  earlier.disabled = false;
});

bus.topic(`${topic}/+`, { mode: 'every' }).subscribe(({ topic: about, value, event }) => {
  if (!event || typeof value !== 'string') return;
  present.set(value, Date.now());
  if (about.endsWith('/typing') && value !== name.value) typing.set(value, Date.now());
  draw();
});

function draw() {
  const since = (/** @type {Map<string, number>} */ heard, /** @type {number} */ ms) =>
    [...heard].filter(([, at]) => Date.now() - at < ms).map(([who]) => who);
  show('present', `Here: ${since(present, GONE_MS).sort().join(', ')}`);
  const names = since(typing, TYPING_MS);
  show('typing', names.length ? `${names.join(', ')} ${names.length > 1 ? 'are' : 'is'} typing` : '');
}
setInterval(draw, 1_000);

/** An event: who is not there to hear it needs not know. @param {string} what */
const tell = (what) => void bus.publish(`${topic}/${what}`, name.value).catch(() => {});

let typed = 0;
text.addEventListener('input', () => {
  if (Date.now() - typed < TYPING_MS / 2) return;
  typed = Date.now();
  tell('typing');
});

element('form').addEventListener('submit', async (event) => {
  event.preventDefault();
  show('trouble', '');
  const sent = text.value;
  // What is typed from now on is another message.
  typed = 0;
  try {
    await bus.publish(topic, { name: name.value, text: sent }, { retain: true });
    typing.delete(name.value);
    if (text.value === sent) text.value = '';
  } catch (error) {
    // It stays in its field.
    show('trouble', `Not sent: ${error instanceof Error ? error.message : error}`);
  }
});

name.value = localStorage.getItem(NAME) ?? `guest-${Math.random().toString(36).slice(2, 6)}`;
name.addEventListener('change', () => {
  localStorage.setItem(NAME, name.value);
  tell('here');
});
new ConnectionLamp(bus, () => messages.synced, 'Offline').draw();
messages.subscribe({ synced: () => tell('here') });
setInterval(() => tell('here'), HERE_MS);
show('room', room);
