// @ts-check
/**
 * A tree of which only the rows in sight are in the document, so that ten thousand topics cost what fifty do. The
 * keyboard moves as in any tree (WAI-ARIA authoring practices, "tree view"); the focus stays on the whole, and
 * `aria-activedescendant` names the row.
 */
import { attribute, make, write } from './dom.js';
import { age, shortSize, whole } from './format.js';
import { previewOf } from './payload.js';

/** @typedef {import('./tree.js').Tree} Tree */
/** @typedef {import('./tree.js').TopicNode} TopicNode */
/** @typedef {Record<'element' | typeof CELLS[number], HTMLElement>} Row */

/** Of a row, in their order. */
const CELLS = /** @type {const} */ (['twisty', 'name', 'kind', 'value', 'updates', 'size', 'revision', 'age']);
/** Said in words beside the tree, for the row that is chosen. */
const SILENT = /** @type {const} */ (['twisty', 'updates', 'size', 'revision']);
/** Rows above and below those in sight. */
const OVERSCAN = 8;
/** Deeper levels are not indented further: a topic may have hundreds. */
const MAX_INDENT = 16;

export class TreeView {
  /** @type {Tree} */
  tree;
  /** Paths of open branches. @type {Set<string>} */
  open = new Set();
  /** Somebody has opened or closed a branch: from then on none opens by itself. */
  isTouched = false;
  /** The path of the row that the keyboard is on. @type {string | undefined} */
  active;
  #scroller;
  #space;
  /** The row at index i of the list is drawn by the element at i modulo the length. @type {Row[]} */
  #pool = [];
  /** @type {TopicNode[]} */
  #rows = [];
  #isShapeNew = true;
  #clock;
  #onSelect;

  /**
   * @param {HTMLElement} scroller the element with the role `tree`
   * @param {Tree} tree
   * @param {import('./clock.js').HubClock} clock
   * @param {(path: string) => void} onSelect
   */
  constructor(scroller, tree, clock, onSelect) {
    this.tree = tree;
    this.#scroller = scroller;
    this.#clock = clock;
    this.#onSelect = onSelect;
    this.#space = make('div', 'space');
    this.#space.setAttribute('role', 'none');
    scroller.append(this.#space);
    scroller.addEventListener('scroll', () => this.draw(), { passive: true });
    scroller.addEventListener('keydown', (event) => this.#onKey(event));
    scroller.addEventListener('click', (event) => this.#onClick(event));
    scroller.addEventListener('focus', () => {
      this.active ??= this.#rows[0]?.path;
      this.draw();
    });
    new ResizeObserver(() => this.draw()).observe(scroller);
  }

  /** Branches or topics came or went. */
  reshape() {
    this.#isShapeNew = true;
  }

  /** Opens what leads to a topic and goes there. @param {string} topic */
  reveal(topic) {
    const node = this.tree.find(topic);
    for (let above = node?.parent; above && above.level > 0; above = above.parent) this.open.add(above.path);
    this.reshape();
    this.draw();
    if (node) this.#goTo(node);
  }

  draw() {
    if (this.#isShapeNew) {
      this.#isShapeNew = false;
      this.#rows = this.tree.rows(this.open);
    }
    const rowHeight = this.#rowHeight();
    const { scrollTop, clientHeight } = this.#scroller;
    const height = `${this.#rows.length * rowHeight}px`;
    if (this.#space.style.height !== height) this.#space.style.height = height;
    this.#fit(Math.ceil(clientHeight / rowHeight) + 2 * OVERSCAN);
    const size = this.#pool.length;
    const top = Math.floor(scrollTop / rowHeight) - OVERSCAN;
    const first = Math.max(0, Math.min(top, this.#rows.length - size));
    let activeId;
    for (let i = first; i < first + size; i++) {
      const row = this.#pool[i % size];
      const node = this.#rows[i];
      if (!row) continue;
      row.element.hidden = !node;
      if (!node) {
        delete row.element.dataset.path;
        continue;
      }
      this.#drawRow(row, node, i * rowHeight);
      if (node.path === this.active) activeId = row.element.id;
    }
    attribute(this.#scroller, 'aria-activedescendant', activeId);
  }

  /** @param {Row} row @param {TopicNode} node @param {number} top_px */
  #drawRow(row, node, top_px) {
    const { element, value } = row;
    const { message, children, parent } = node;
    const isBranch = children.length > 0;
    const isOpen = isBranch && this.open.has(node.path);
    if (element.dataset.path !== node.path) element.dataset.path = node.path;
    element.style.transform = `translateY(${top_px}px)`;
    element.style.setProperty('--level', String(Math.min(node.level, MAX_INDENT)));
    attribute(element, 'aria-level', String(node.level));
    attribute(element, 'aria-setsize', String(parent?.children.length ?? 1));
    attribute(element, 'aria-posinset', String((parent?.children.indexOf(node) ?? 0) + 1));
    attribute(element, 'aria-expanded', isBranch ? String(isOpen) : undefined);
    attribute(element, 'aria-selected', String(node.path === this.active));
    write(row.twisty, isBranch ? (isOpen ? '▾' : '▸') : '');
    write(row.name, node.name || '(empty)');
    write(row.kind, message?.event ? 'event' : '');
    const below = node.count - (message ? 1 : 0);
    const preview = message ? previewOf(message) : isOpen ? '' : `${whole(below)} ${below === 1 ? 'topic' : 'topics'}`;
    write(value, preview);
    attribute(value, 'data-kind', message ? 'value' : 'count');
    write(row.updates, message ? whole(node.updates) : '');
    write(row.size, message ? shortSize(message.bytes ?? 0) : '');
    write(row.revision, message ? whole(message.rev) : '');
    write(row.age, message ? age(this.#clock.age_ms(message.at)) : '');
  }

  /** As many elements as the list may need at a time. @param {number} size */
  #fit(size) {
    while (this.#pool.length < size) {
      const element = make('div', 'row');
      element.setAttribute('role', 'treeitem');
      element.id = `row-${this.#pool.length}`;
      const cells = CELLS.map((kind) => /** @type {const} */ ([kind, make('span', kind)]));
      const row = /** @type {Row} */ (Object.fromEntries([['element', element], ...cells]));
      for (const kind of SILENT) row[kind].setAttribute('aria-hidden', 'true');
      for (const cell of [row.name, row.value]) cell.dir = 'auto';
      element.append(...cells.map(([, cell]) => cell));
      this.#space.append(element);
      this.#pool.push(row);
    }
  }

  /** One height for all rows, as the stylesheet says. */
  #rowHeight() {
    this.#fit(1);
    return this.#pool[0]?.element.offsetHeight || 32;
  }

  /** @param {TopicNode} node */
  #goTo(node) {
    this.active = node.path;
    const index = this.#rows.indexOf(node);
    const rowHeight = this.#rowHeight();
    const { scrollTop, clientHeight } = this.#scroller;
    const top = index * rowHeight;
    if (top < scrollTop) this.#scroller.scrollTop = top;
    if (top + rowHeight > scrollTop + clientHeight) this.#scroller.scrollTop = top + rowHeight - clientHeight;
    this.draw();
    this.#onSelect(node.path);
  }

  /** @param {TopicNode} node @param {boolean} [isOpen] */
  toggle(node, isOpen = !this.open.has(node.path)) {
    if (node.children.length === 0) return;
    this.isTouched = true;
    if (isOpen) this.open.add(node.path);
    else this.open.delete(node.path);
    this.reshape();
    this.draw();
  }

  /** @param {MouseEvent} event */
  #onClick({ target }) {
    const row = target instanceof Element ? target.closest('.row') : undefined;
    const node = this.#rows.find(({ path }) => row instanceof HTMLElement && path === row.dataset.path);
    if (!node) return;
    const isTwisty = target instanceof Element && target.classList.contains('twisty');
    if (isTwisty || !node.message) this.toggle(node);
    this.#goTo(node);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const { key, altKey, ctrlKey, metaKey } = event;
    if (altKey || ctrlKey || metaKey) return;
    const index = this.#rows.findIndex(({ path }) => path === this.active);
    const node = this.#rows[index];
    const page = Math.max(1, Math.floor(this.#scroller.clientHeight / this.#rowHeight()) - 1);
    const last = this.#rows.length - 1;
    /** @type {Record<string, () => number | void>} */
    const moves = {
      ArrowDown: () => Math.min(last, index + 1),
      ArrowUp: () => Math.max(0, index - 1),
      PageDown: () => Math.min(last, index + page),
      PageUp: () => Math.max(0, index - page),
      Home: () => 0,
      End: () => last,
      ArrowRight: () => {
        if (!node || node.children.length === 0) return;
        if (this.open.has(node.path)) return index + 1;
        this.toggle(node, true);
      },
      ArrowLeft: () => {
        if (!node) return;
        if (node.children.length > 0 && this.open.has(node.path)) return this.toggle(node, false);
        return node.parent ? this.#rows.indexOf(node.parent) : -1;
      },
      Enter: () => node && this.toggle(node),
      ' ': () => node && this.toggle(node),
    };
    const forward = this.#scroller.matches(':dir(rtl)') ? { ArrowLeft: 'ArrowRight', ArrowRight: 'ArrowLeft' } : {};
    const move = moves[/** @type {Record<string, string>} */ (forward)[key] ?? key];
    if (!move) return;
    event.preventDefault();
    const there = this.#rows[move() ?? index];
    if (there) this.#goTo(there);
  }
}
