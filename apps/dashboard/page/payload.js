// @ts-check
/** Payloads as people read and write them: JSON, text, hexadecimal. */

/** @typedef {'json' | 'text' | 'hex'} View */

/** Bytes of a dump: more is a matter for a tool. */
const MAX_DUMP_BYTES = 4_096;
const DUMP_ROW = 16;
const MAX_PREVIEW = 120;

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The payload as text, undefined where it is none. @param {Uint8Array} bytes */
export function textOf(bytes) {
  try {
    return strict.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Indented JSON, undefined where it is none. @param {Uint8Array} bytes */
export function jsonOf(bytes) {
  const text = textOf(bytes);
  try {
    return text === undefined ? undefined : JSON.stringify(JSON.parse(text), undefined, 2);
  } catch {
    return undefined;
  }
}

/** Offset, bytes and what of them is ASCII. @param {Uint8Array} bytes */
export function dumpOf(bytes) {
  const lines = [];
  for (let start = 0; start < Math.min(bytes.length, MAX_DUMP_BYTES); start += DUMP_ROW) {
    const row = [...bytes.subarray(start, start + DUMP_ROW)];
    const codes = row.map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const letters = row.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '·')).join('');
    lines.push(`${start.toString(16).padStart(4, '0')}  ${codes.padEnd(3 * DUMP_ROW - 1)}  ${letters}`);
  }
  if (bytes.length > MAX_DUMP_BYTES) lines.push(`… and ${bytes.length - MAX_DUMP_BYTES} bytes more`);
  return lines.join('\n');
}

/** One line for a list. @param {unknown} value as a `Message` has it */
export function previewOf(value) {
  let text;
  if (value instanceof Uint8Array) {
    const start = value.subarray(0, 24);
    text = [...start].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    if (value.length > start.length) text += ' …';
  } else {
    text = typeof value === 'string' ? value : JSON.stringify(value);
  }
  return text.length > MAX_PREVIEW ? `${text.slice(0, MAX_PREVIEW)}…` : text;
}

/** The bytes of a `Message`'s value; of JSON in the shortest form, since the original one is not known. @param {unknown} value */
export function bytesOf(value) {
  if (value instanceof Uint8Array) return value;
  return new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value));
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
