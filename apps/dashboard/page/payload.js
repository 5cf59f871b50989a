// @ts-check
/** Payloads as people read and write them: JSON, text, hexadecimal. */

/** @typedef {import('./latchbus.js').Message} Message */
/** @typedef {'json' | 'text' | 'hex'} View */

/** Bytes of a dump: more is a matter for a tool. */
const MAX_DUMP_BYTES = 4_096;
const DUMP_ROW = 16;
const MAX_PREVIEW = 120;
/** Deeper levels of JSON stand in one line: indenting a million of them would need a million millions of spaces. */
const MAX_INDENT = 32;
/** A text, a number or a word, a sign. Of JSON that was parsed before, so nothing else is between them but white space. */
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[^\s",:[\]{}]+|[,:[\]{}]/g;

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The payload as text, undefined where it is none. @param {Uint8Array} bytes */
export function textOf(bytes) {
  try {
    return strict.decode(bytes);
  } catch {
    return undefined;
  }
}

/** JSON indented, undefined where it is none. Its tokens stand as they were published: no digit is lost. @param {Uint8Array} bytes */
export function jsonOf(bytes) {
  const text = textOf(bytes);
  try {
    JSON.parse(text ?? '');
  } catch {
    return undefined;
  }
  return text && indented(text);
}

/** @param {string} json */
function indented(json) {
  const parts = [];
  let depth = 0;
  let previous = '';
  for (const [token] of json.matchAll(TOKEN)) {
    const closes = token === ']' || token === '}';
    const isFirst = previous === '[' || previous === '{';
    const breaks = isFirst ? !closes : closes || previous === ',';
    if (breaks && depth <= MAX_INDENT) parts.push('\n', '  '.repeat(closes ? depth - 1 : depth));
    if (token === '[' || token === '{') depth++;
    if (closes) depth--;
    parts.push(token === ':' ? ': ' : token);
    previous = token;
  }
  return parts.join('');
}

/** Offset, bytes and what of them is ASCII. @param {Uint8Array} bytes */
export function dumpOf(bytes) {
  const lines = [];
  for (let start = 0; start < Math.min(bytes.length, MAX_DUMP_BYTES); start += DUMP_ROW) {
    const row = bytes.subarray(start, start + DUMP_ROW);
    const codes = hexOf(row);
    const letters = [...row].map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '·')).join('');
    lines.push(`${start.toString(16).padStart(4, '0')}  ${codes.padEnd(3 * DUMP_ROW - 1)}  ${letters}`);
  }
  if (bytes.length > MAX_DUMP_BYTES) lines.push(`… and ${bytes.length - MAX_DUMP_BYTES} bytes more`);
  return lines.join('\n');
}

/** One line for a list. @param {Pick<Message, 'raw' | 'value'>} message */
export function previewOf({ raw = '', value }) {
  if (raw instanceof Uint8Array) return hexOf(raw.subarray(0, 24)) + (raw.length > 24 ? ' …' : '');
  let text = raw;
  // JSON, without the white space between its tokens.
  if (raw !== value) {
    text = '';
    for (const [token] of raw.matchAll(TOKEN)) {
      text += token;
      if (text.length > MAX_PREVIEW) break;
    }
  }
  return text.length > MAX_PREVIEW ? `${text.slice(0, MAX_PREVIEW)}…` : text;
}

/** Pairs of digits. @param {Uint8Array} bytes */
export function hexOf(bytes) {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
}

/** The bytes that were published. @param {Message} message */
export function bytesOf({ raw = '' }) {
  return typeof raw === 'string' ? new TextEncoder().encode(raw) : raw;
}

/**
 * What was typed as something to publish.
 * @param {View} view @param {string} typed
 * @returns {{ value: string | Uint8Array } | { problem: string }}
 */
export function parse(view, typed) {
  if (view === 'text') return { value: typed };
  if (view === 'json') {
    try {
      JSON.parse(typed);
    } catch {
      return { problem: 'This is not JSON. Text goes out as it is if you choose Text.' };
    }
    // Byte by byte as typed: no number is rounded and no key moved.
    return { value: typed };
  }
  const digits = typed.replace(/\s+/g, '');
  if (!/^(?:[0-9a-f]{2})*$/i.test(digits)) return { problem: 'Hex takes pairs of the digits 0–9 and a–f.' };
  return { value: Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16)) };
}
