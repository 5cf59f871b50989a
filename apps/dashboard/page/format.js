// @ts-check
/** Numbers, ages and sizes as people read them. */

const wholeFormat = new Intl.NumberFormat();
const tenthFormat = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const shortFormat = new Intl.NumberFormat(undefined, { notation: 'compact', maximumFractionDigits: 2 });

export const whole = (/** @type {number} */ n) => wholeFormat.format(n);
export const tenth = (/** @type {number} */ n) => tenthFormat.format(n);
/** For a column, where a long number would push out its neighbours. */
export const short = (/** @type {number} */ n) => shortFormat.format(n);

/** From here on a decimal says nothing, and a phone has no room for it. */
const SHORT_RATE_FROM = 100_000;
/** Clicks a second. @param {number} n */
export const rate = (n) => (n < SHORT_RATE_FROM ? tenth(n) : short(n));

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** How long ago, in one unit. @param {number} age_ms */
export function age(age_ms) {
  const seconds = Math.floor(age_ms / 1000);
  if (seconds < 1) return 'now';
  if (seconds < MINUTE) return `${seconds} s`;
  if (seconds < HOUR) return `${Math.floor(seconds / MINUTE)} min`;
  if (seconds < DAY) return `${Math.floor(seconds / HOUR)} h`;
  return `${whole(Math.floor(seconds / DAY))} d`;
}

/** @param {number} bytes */
export function size(bytes) {
  return bytes < 1024 ? shortSize(bytes) : `${shortSize(bytes)} (${whole(bytes)} B)`;
}

/** For a column. @param {number} bytes */
export function shortSize(bytes) {
  return bytes < 1024 ? `${whole(bytes)} B` : `${tenth(bytes / 1024)} KiB`;
}
