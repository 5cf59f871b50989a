// @ts-check
/** The window on the bus: everything that is kept, as a live tree, and how the hub is doing. */
import { HubClock } from './clock.js';
import { ConnectionLamp } from './connection.js';
import { attribute, element, elementOf, oncePerFrame, show, whileVisible } from './dom.js';
import { filterProblem } from './filter.js';
import { whole } from './format.js';
import { Inspector } from './inspector.js';
import { connectHub } from './hub.js';
import { Publisher } from './publisher.js';
import { MAX_TOPICS, Tree } from './tree.js';
import { TreeView } from './treeview.js';

/** @typedef {import('./latchbus.js').Message} Message */
/** @typedef {import('./latchbus.js').Topic} Topic */

/** `#` does not match topics that begin with `$` (MQTT 3.1.1 §4.7.2), and everything means these too. */
const EVERYTHING = ['#', '$SYS/#'];
/** Frames a second and topic: a list is read, not watched. */
const MAX_RATE = 4;
const DRAW_MS = 100;
const TICK_MS = 1_000;
const FILTER_MS = 300;
/** A tree opens by itself as far as this many rows go. */
const OPEN_ROWS = 40;
const SYS = '$SYS/broker/';
/** @type {[string, string][]} */
const FACTS = [
  ['fact-kept', 'retained messages/count'],
  ['fact-clients', 'clients/connected'],
  ['fact-conflated', 'publish/messages/conflated'],
  ['fact-skipped', 'publish/messages/skipped'],
  ['fact-refused', 'publish/messages/refused'],
];

const bus = connectHub();
const clock = new HubClock();
const view = new TreeView(element('tree'), new Tree(), clock, (path) => {
  inspector.select(path, view.tree.find(path));
});
const publisher = new Publisher(bus);
const inspector = new Inspector(bus, clock, (topic, kind, text) => publisher.edit(topic, kind, text));
/** @type {ReturnType<typeof setTimeout> | undefined} */
let drawTimer;
const drawInFrame = oncePerFrame(draw);
/** @type {Topic[]} */
let sources = [];
/** What the rules do not let this page see: of everything, the rest is shown. @type {Set<Topic>} */
const refused = new Set();
const isLive = () => sources.length > 0 && sources.every((source) => source.synced || refused.has(source));
const lamp = new ConnectionLamp(bus, isLive, 'Offline. These are the last known values.');
const facts = bus.topic(`${SYS}#`, { maxRate: 1 });
facts.subscribe({ next: () => drawFacts(), synced: () => drawFacts() });

const input = elementOf('filter', HTMLInputElement);
input.value = new URLSearchParams(location.search).get('filter') ?? '';
/** @type {ReturnType<typeof setTimeout> | undefined} */
let filterTimer;
input.addEventListener('input', () => {
  clearTimeout(filterTimer);
  filterTimer = setTimeout(applyFilter, FILTER_MS);
});
element('filter-form').addEventListener('submit', (event) => {
  event.preventDefault();
  applyFilter();
});
for (const example of document.querySelectorAll('[data-filter]')) {
  example.addEventListener('click', () => {
    input.value = /** @type {HTMLElement} */ (example).dataset.filter ?? '';
    applyFilter();
  });
}
element('open-all').addEventListener('click', () => setOpen(view.tree.branches()));
element('close-all').addEventListener('click', () => setOpen(new Set()));

bus.state.subscribe((state) => {
  clock.observe(state);
  const { conflated, skipped } = state;
  for (const [id, count] of Object.entries({ 'own-conflated': conflated, 'own-skipped': skipped })) {
    show(id, count === undefined ? '–' : whole(count));
  }
  drawSoon();
});
applyFilter();
whileVisible(() => {
  view.draw();
  inspector.drawAge();
}, TICK_MS);

/** Looks at the bus through another filter. */
function applyFilter() {
  clearTimeout(filterTimer);
  const filter = input.value;
  const problem = filter && filterProblem(filter);
  attribute(input, 'aria-invalid', problem ? 'true' : undefined);
  show('filter-problem', problem);
  const filters = filter ? [filter] : EVERYTHING;
  if (problem || filters.join() === element('tree').dataset.filters) return;
  element('tree').dataset.filters = filters.join();
  // A query alone would be one of the base path.
  const query = filter ? `?filter=${encodeURIComponent(filter)}` : '';
  history.replaceState(undefined, '', location.pathname + query);

  for (const source of sources) source.close();
  refused.clear();
  const tree = new Tree();
  view.tree = tree;
  view.isTouched = false;
  view.reshape();
  let isNew = true;
  sources = filters.map((each) => bus.topic(each, { maxRate: MAX_RATE }));
  for (const source of sources) {
    source.subscribe({
      next: (message) => {
        if (source.synced) clock.hear(message.at);
        if (tree.take(message)) {
          if (tree.size <= OPEN_ROWS) openSome();
          view.reshape();
        }
        if (message.topic === inspector.topic) inspector.update(tree.find(message.topic));
        drawSoon();
      },
      synced: () => {
        if (isNew && isLive()) {
          isNew = false;
          openSome();
          view.reshape();
        }
        drawSoon();
      },
      error: (error) => {
        if (error.code === 'not_allowed') refused.add(source);
        if (filter || refused.size === sources.length) show('filter-problem', error.message);
        drawSoon();
      },
    });
  }
  drawSoon();
}

/** A small tree, or the top of a large one, lies open from the start. */
function openSome() {
  if (!view.isTouched && isLive()) view.open = view.tree.branchesWithin(OPEN_ROWS);
}

/** @param {Set<string>} open */
function setOpen(open) {
  view.isTouched = true;
  view.open = open;
  view.reshape();
  view.draw();
}

function drawSoon() {
  drawTimer ??= setTimeout(() => {
    drawTimer = undefined;
    drawInFrame();
  }, DRAW_MS);
}
function draw() {
  const { tree } = view;
  lamp.draw();
  view.draw();
  show('topics-tally', whole(tree.size));
  show('tree-note', noteOf(tree));
  drawFacts();
}

/** @param {Tree} tree */
function noteOf({ size, left }) {
  if (left > 0) return `Only ${whole(MAX_TOPICS)} topics are shown. Narrow the filter to see others.`;
  if (size > 0) return '';
  return isLive() ? 'No topic matches.' : 'Waiting for the hub…';
}

function drawFacts() {
  for (const [id, name] of FACTS) {
    const value = Number(facts.last.get(SYS + name)?.value ?? NaN);
    show(id, facts.synced && Number.isFinite(value) ? whole(value) : '–');
  }
}
