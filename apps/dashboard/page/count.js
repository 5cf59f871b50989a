// @ts-check
/** Clicks of each colour: their arithmetic, and how they come over the network. */

/** @typedef {'red' | 'blue'} Color */
/** @typedef {Record<Color, number>} Count */

/** All colours, in the order of the compact form. @type {Color[]} */
export const COLORS = ['red', 'blue'];

/** Counters stop here, so that every reader of JSON sees whole numbers. */
const MAX_COUNT = Number.MAX_SAFE_INTEGER;

/** @param {(color: Color, n: number) => number} value */
const each = (value) => /** @type {Count} */ (Object.fromEntries(COLORS.map((color, n) => [color, value(color, n)])));

export const zero = () => each(() => 0);
/** @param {Count} a @param {Count} b */
export const larger = (a, b) => each((color) => Math.max(a[color], b[color]));
/** @param {Count} a @param {Count} b */
export const minus = (a, b) => each((color) => Math.max(0, a[color] - b[color]));
/** @param {Count} a @param {Count} b */
export const plus = (a, b) => each((color) => Math.min(MAX_COUNT, a[color] + b[color]));
/** @param {Count} a @param {Count} b */
export const covers = (a, b) => COLORS.every((color) => a[color] >= b[color]);
/** @param {Count} a */
export const some = (a) => COLORS.some((color) => a[color] > 0);
/** @param {Count} a */
export const total = (a) => COLORS.reduce((sum, color) => sum + a[color], 0);

/** A count as it may come from the network. @param {any} value @returns {Count | undefined} */
export function readCount(value) {
  if (value instanceof Uint8Array) value = readPostcard(value);
  /** @param {any} n */
  const isCount = (n) => Number.isSafeInteger(n) && n >= 0;
  return COLORS.every((color) => isCount(value?.[color])) ? each((color) => value[color]) : undefined;
}

/** The compact form of microcontrollers: the byte 0x01 and a varint for each colour. @param {Uint8Array} bytes */
function readPostcard(bytes) {
  if (bytes[0] !== 1) return undefined;
  /** @type {number[]} */
  const numbers = [];
  let value = 0;
  let scale = 1;
  for (const byte of bytes.subarray(1)) {
    value += (byte & 0x7f) * scale;
    scale *= 128;
    if (byte < 0x80) {
      numbers.push(value);
      value = 0;
      scale = 1;
    }
  }
  return numbers.length === COLORS.length && scale === 1 ? each((_, n) => numbers[n] ?? 0) : undefined;
}
