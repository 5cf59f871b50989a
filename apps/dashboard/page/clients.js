// @ts-check
/** Who is connected, and whose sessions are kept. For administrators. */
import { api } from './api.js';
import { ClientDetail } from './clientdetail.js';
import { ClientList, keyOf, MAX_ROWS } from './clientlist.js';
import { HubClock } from './clock.js';
import { ConnectionLamp } from './connection.js';
import { attribute, element, elementOf, oncePerFrame, show, whileVisible } from './dom.js';
import { age, whole } from './format.js';
import { connectHub } from './hub.js';

/** @typedef {import('./clientlist.js').Entry} Entry */
/** @typedef {{ entries: Entry[], total: number }} Listed */
/** @typedef {{ clients: Listed, sessions: Listed }} Lists */

const TICK_MS = 1_000;
/** Between two looks at the lists; a look that takes long is followed by a longer rest. */
const REFRESH_MS = 2_000;
const REST = 10;
const SEARCH_MS = 250;

const bus = connectHub();
const clock = new HubClock();
/** What the server said last. @type {Lists | undefined} */
let lists;
let wasSearched = '';
let isAsking = false;
let isOld = true;
let next_ms = 0;
const detail = new ClientDetail(clock, () => refreshNow());
/** @type {import('./clientlist.js').Column[]} */
const counts = [
  ['number filters', ({ subscriptions }) => whole(subscriptions)],
  ['number pending', ({ pending }) => whole(pending)],
  ['number flight', ({ in_flight }) => whole(in_flight)],
];
const clients = new ClientList(
  'clients',
  [
    ['transport', ({ transport = '' }) => transport],
    ['number since', ({ since = 0 }) => age(clock.age_ms(since))],
    ...counts,
    ['number lost', ({ lost = 0 }) => whole(lost)],
  ],
  choose,
);
const sessions = new ClientList(
  'sessions',
  [['number since', ({ expires_in_secs = 0 }) => age(expires_in_secs * 1_000)], ...counts],
  choose,
);
const lamp = new ConnectionLamp(bus, () => lists !== undefined && !isOld, 'Offline. These are the last known clients.');
const drawSoon = oncePerFrame(draw);

const input = elementOf('search', HTMLInputElement);
input.value = new URLSearchParams(location.search).get('search') ?? '';
/** @type {ReturnType<typeof setTimeout> | undefined} */
let searchTimer;
input.addEventListener('input', () => {
  clearTimeout(searchTimer);
  searchTimer = setTimeout(search, SEARCH_MS);
});
element('search-form').addEventListener('submit', (event) => {
  event.preventDefault();
  search();
});

bus.state.subscribe((state) => {
  clock.observe(state);
  if (state.phase !== 'live') isOld = true;
  else if (isOld) refreshNow();
  drawSoon();
});
whileVisible(() => {
  void refresh();
  drawSoon();
}, TICK_MS);

function search() {
  clearTimeout(searchTimer);
  const query = input.value ? `?${parameters({ search: input.value })}` : '';
  // A query alone would be one of the base path.
  history.replaceState(undefined, '', location.pathname + query);
  refreshNow();
}

function refreshNow() {
  next_ms = 0;
  void refresh();
}

async function refresh() {
  const isLive = bus.state.value?.phase === 'live' && document.documentElement.dataset.admin !== 'false';
  if (!isLive || isAsking || performance.now() < next_ms) return;
  isAsking = true;
  const started_ms = performance.now();
  next_ms = started_ms + REFRESH_MS;
  const wanted = input.value;
  try {
    lists = await ask(wanted);
    wasSearched = wanted;
    const { key } = detail;
    if (key) detail.update(find(lists, key) ?? find(await ask(detail.search), key));
    await detail.refresh();
    isOld = false;
    show('problem', '');
  } catch (error) {
    // Offline it says so by itself, and so it does when the sign-in has ended.
    if (bus.state.value?.phase === 'live') show('problem', `The list is not up to date: ${error instanceof Error ? error.message : error}.`);
  }
  isAsking = false;
  const now_ms = performance.now();
  if (next_ms > 0) next_ms = Math.max(next_ms, now_ms + REST * (now_ms - started_ms));
  drawSoon();
  if (next_ms === 0) void refresh();
}

/** @param {string} wanted @returns {Promise<Lists>} */
async function ask(wanted) {
  const query = parameters({ limit: String(MAX_ROWS), search: wanted });
  const [here, away] = await Promise.all([api(`api/v1/clients?${query}`), api(`api/v1/sessions?${query}`)]);
  return {
    clients: { entries: here.clients, total: here.total },
    sessions: { entries: away.sessions, total: away.total },
  };
}

/** A space is `%20` in the API, and `+` is itself. @param {Record<string, string>} values */
function parameters(values) {
  return String(new URLSearchParams(values)).replaceAll('+', '%20');
}

/** @param {Lists} lists @param {string} key */
function find({ clients, sessions }, key) {
  return [...clients.entries, ...sessions.entries].find((entry) => keyOf(entry) === key);
}

/** @param {string} key */
function choose(key) {
  const entry = lists && find(lists, key);
  if (!entry) return;
  detail.choose(entry);
  refreshNow();
  draw();
  // On a phone it is below the list.
  element('client').scrollIntoView({ block: 'nearest' });
}

function draw() {
  lamp.draw();
  detail.draw();
  if (!lists) return;
  const { key } = detail;
  const none = (/** @type {string} */ text) => (wasSearched ? 'None matches.' : text);
  clients.draw(lists.clients.entries, lists.clients.total, key, none('Nobody is connected.'));
  sessions.draw(lists.sessions.entries, lists.sessions.total, key, none('No session is kept.'));
  attribute(element('client'), 'data-key', key);
}
