// @ts-check
/** Pairs of clicks: their arithmetic, and how they come over the network. */

/** @typedef {{ red: number, blue: number }} Count */

/** Counters stop here, so that every reader of JSON sees whole numbers. */
const MAX_COUNT = Number.MAX_SAFE_INTEGER;

export const zero = () => ({ red: 0, blue: 0 });
/** @param {Count} a @param {Count} b */
export const larger = (a, b) => ({ red: Math.max(a.red, b.red), blue: Math.max(a.blue, b.blue) });
/** @param {Count} a @param {Count} b */
export const minus = (a, b) => ({ red: Math.max(0, a.red - b.red), blue: Math.max(0, a.blue - b.blue) });
/** @param {Count} a @param {Count} b */
export const plus = (a, b) => ({
  red: Math.min(MAX_COUNT, a.red + b.red),
  blue: Math.min(MAX_COUNT, a.blue + b.blue),
});
/** @param {Count} a @param {Count} b */
export const covers = (a, b) => a.red >= b.red && a.blue >= b.blue;
/** @param {Count} a */
export const some = (a) => a.red > 0 || a.blue > 0;

/** A count as it may come from the network. @param {any} value @returns {Count | undefined} */
export function readCount(value) {
  if (value instanceof Uint8Array) value = readPostcard(value);
  /** @param {any} n */
  const isCount = (n) => Number.isSafeInteger(n) && n >= 0;
  return isCount(value?.red) && isCount(value?.blue) ? { red: value.red, blue: value.blue } : undefined;
}

/** The compact form of microcontrollers: the byte 0x01, varint red, varint blue. @param {Uint8Array} bytes */
function readPostcard(bytes) {
  if (bytes[0] !== 1) return undefined;
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
  const [red, blue] = numbers;
  return numbers.length === 2 && scale === 1 ? { red, blue } : undefined;
}
