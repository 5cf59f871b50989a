// @ts-check
/** MQTT topic filters and names, as far as a form must know them before it asks the hub (MQTT 3.1.1 §4.7). */

const MAX_BYTES = 1_024;

/** Why this can't be a filter; empty when it can. @param {string} filter */
export function filterProblem(filter) {
  const levels = filter.split('/');
  const hash = levels.findIndex((level) => level.includes('#'));
  if (hash >= 0 && (levels[hash] !== '#' || hash < levels.length - 1)) return '# stands alone, as the last level.';
  if (levels.some((level) => level.includes('+') && level !== '+')) return '+ stands for a whole level.';
  return lengthProblem(filter);
}

/** Why this can't be a topic; empty when it can. @param {string} topic */
export function topicProblem(topic) {
  if (/[+#]/.test(topic)) return '+ and # belong in filters, not in topics.';
  return lengthProblem(topic);
}

/** @param {string} text */
function lengthProblem(text) {
  if (text === '') return 'A topic has at least one character.';
  if (text.includes('\0')) return 'A topic has no NUL character.';
  return new TextEncoder().encode(text).length > MAX_BYTES ? `A topic has at most ${MAX_BYTES} bytes.` : '';
}
