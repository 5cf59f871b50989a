// @ts-check
/** The chart of the last minutes, drawn as two paths in a box of 300 by 100: a unit is a second. */
import { attribute, element, show } from './dom.js';
import { COLORS } from './count.js';
import { tenth, whole } from './format.js';
import { WINDOW_MS } from './rates.js';

/** @typedef {import('./rates.js').Rate} Rate */
/** @typedef {import('./count.js').Color} Color */

const WIDTH = WINDOW_MS / 1000;
const HEIGHT = 100;
/** Between two values no more than this apart the line is straight; over a longer time the older one held. */
const STEP_MS = 1_500;
const LOWEST_TOP = 1;

/** @param {import('./rates.js').Rates} rates @param {boolean} isLive the last value holds until now */
export function drawChart(rates, isLive) {
  const now = Date.now();
  const { points } = rates;
  const seen = points.filter(({ at }, i) => (points[i + 1]?.at ?? now) >= now - WINDOW_MS);
  const highest = Math.max(0, ...seen.flatMap((rate) => COLORS.map((color) => rate[color])));
  const top = niceTop(highest);
  for (const color of COLORS) {
    const runs = pieces(seen, color, top, now, isLive);
    attribute(element(`chart-${color}`), 'd', runs.map(lineOf).join('') || 'M0 0');
    attribute(element(`chart-${color}-area`), 'd', runs.map(areaOf).join('') || 'M0 0');
  }
  show('chart-top', whole(top));
  const last = seen.at(-1);
  const present = isLive && last && !last.isGap ? `now ${COLORS.map((color) => `${tenth(last[color])} ${color}`).join(' and ')}` : 'not live';
  const text = `Clicks a second over the last 5 minutes: ${present}, at most ${tenth(highest)}`;
  attribute(element('chart'), 'aria-label', text);
}

/**
 * Unbroken runs of x and y.
 * @param {Rate[]} rates @param {Color} color @param {number} top @param {number} now @param {boolean} isLive
 */
function pieces(rates, color, top, now, isLive) {
  const x = (/** @type {number} */ at) => Math.max(0, WIDTH - (now - at) / 1000);
  /** @type {[number, number][][]} */
  const runs = [];
  /** @type {[number, number][] | undefined} */
  let run;
  let height = 0;
  let lastAt = 0;
  for (const rate of rates) {
    if (run && rate.at - lastAt > STEP_MS) run.push([x(rate.at - STEP_MS / 2), height]);
    if (rate.isGap) {
      run?.push([x(rate.at), height]);
      run = undefined;
      continue;
    }
    if (!run) runs.push((run = []));
    height = HEIGHT * (1 - rate[color] / top);
    lastAt = rate.at;
    run.push([x(rate.at), height]);
  }
  if (run && isLive) run.push([WIDTH, height]);
  return runs;
}

/** @param {[number, number][]} run */
function lineOf(run) {
  return run.map(([x, y], i) => `${i ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`).join('');
}

/** @param {[number, number][]} run */
function areaOf(run) {
  return `${lineOf(run)}L${run.at(-1)?.[0].toFixed(1)} ${HEIGHT}L${run[0]?.[0].toFixed(1)} ${HEIGHT}Z`;
}

/** The next of 1, 2, 5, 10, 20, … @param {number} highest */
function niceTop(highest) {
  if (highest <= LOWEST_TOP) return LOWEST_TOP;
  const power = 10 ** Math.floor(Math.log10(highest));
  return power * ([1, 2, 5].find((step) => step * power >= highest) ?? 10);
}
