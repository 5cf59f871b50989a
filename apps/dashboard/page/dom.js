// @ts-check
/** The few steps between a value and the document. */

/** @param {string} id @returns {HTMLElement} */
export function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element ${id}`);
  return found;
}

/** @template {HTMLElement} E @param {string} id @param {{ new (): E }} kind @returns {E} */
export function elementOf(id, kind) {
  const found = element(id);
  if (!(found instanceof kind)) throw new Error(`${id} is no ${kind.name}`);
  return found;
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag @param {string} [className] @param {string} [text]
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** @param {string} id @param {string} text */
export function show(id, text) {
  write(element(id), text);
}

/**
 * Writes only a change: an untouched node costs no layout, and a live region says nothing.
 * @param {HTMLElement | undefined} node @param {string} text
 */
export function write(node, text) {
  if (!node) return;
  const { firstChild } = node;
  if (firstChild instanceof Text && !firstChild.nextSibling) {
    // The text node stays, so that a selection in it and the layout of its line stay too.
    if (firstChild.data !== text) firstChild.data = text;
  } else if (node.textContent !== text) {
    node.textContent = text;
  }
}

/** @param {Element} node @param {string} name @param {string | undefined} value undefined takes it away */
export function attribute(node, name, value) {
  if (value === undefined) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** Calls once a frame at most, however often it is asked. @param {() => void} draw @returns {() => void} */
export function oncePerFrame(draw) {
  let isDue = false;
  return () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      draw();
    });
  };
}

/** Calls every so often while the page can be seen, and when it comes into sight. @param {() => void} tick @param {number} interval_ms */
export function whileVisible(tick, interval_ms) {
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let timer;
  const follow = () => {
    clearInterval(timer);
    if (document.visibilityState !== 'visible') return;
    tick();
    timer = setInterval(tick, interval_ms);
  };
  document.addEventListener('visibilitychange', follow);
  follow();
}
