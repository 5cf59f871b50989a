#!/usr/bin/env bash
# The reading 0 of a CloudEvent arrives as no data, or as text (cloudevents for JavaScript 10.0.0).
#
# Expected: HTTP.toEvent gives back the JSON value that was sent, in each mode of the HTTP binding; a sensor's 0, false and 21.5 are values
#   like others. CloudEvents 1.0.2, JSON event format §3.1.1: `data` may be any JSON value, also null; §3.1.2: it must be treated directly as
#   that value, and a string must not be parsed. HTTP binding §3.1.2 (binary mode): the body is the data in the format of its Content-Type.
# Seen, each with the same valid event of datacontenttype application/json:
#   structured: 0, false, null and "" become undefined, as if the event had no data; 21.5 and true arrive.
#   batched: every value arrives as it is.
#   binary: numbers, true, false and null arrive as strings ("0", "21.5", "false"); only objects, arrays and strings in quotes are parsed.
#   binary, outwards: the string `hello` is sent without quotes, which is not JSON.
# Versions: cloudevents 10.0.0 (npm), node 20.20.2. Date: 2026-11-28.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
printf '{"private": true}\n' >package.json
timeout 180 npm install --silent --no-audit --no-fund --ignore-scripts cloudevents@10.0.0
node -p '`cloudevents ${require("cloudevents/package.json").version}, node ${process.version}`'

cat >check.cjs <<'JS'
const { CloudEvent, HTTP } = require('cloudevents');
const attributes = { specversion: '1.0', id: '1', source: '/lab/1', type: 'reading', datacontenttype: 'application/json' };
const headers = { 'ce-specversion': '1.0', 'ce-id': '1', 'ce-source': '/lab/1', 'ce-type': 'reading', 'content-type': 'application/json' };
const received = {
  structured: (value) =>
    HTTP.toEvent({ headers: { 'content-type': 'application/cloudevents+json' }, body: JSON.stringify({ ...attributes, data: value }) }).data,
  batched: (value) =>
    HTTP.toEvent({
      headers: { 'content-type': 'application/cloudevents-batch+json' },
      body: JSON.stringify([{ ...attributes, data: value }]),
    })[0].data,
  binary: (value) => HTTP.toEvent({ headers, body: JSON.stringify(value) }).data,
};
// value sent, then what each mode gave on 2026-11-28
const rows = [
  [0, undefined, 0, '0'],
  [21.5, 21.5, 21.5, '21.5'],
  [false, undefined, false, 'false'],
  [true, true, true, 'true'],
  [null, undefined, null, 'null'],
  ['', undefined, '', ''],
  ['hello', 'hello', 'hello', 'hello'],
  [{ v: 0 }, { v: 0 }, { v: 0 }, { v: 0 }],
];
const show = (value) => (value === undefined ? 'undefined' : JSON.stringify(value));
let changed = false;
console.log('sent'.padEnd(10), ...Object.keys(received).map((mode) => mode.padEnd(11)));
for (const [value, ...expected] of rows) {
  const seen = Object.values(received).map((receive) => show(receive(value)));
  const same = seen.every((text, i) => text === show(expected[i]));
  changed ||= !same;
  console.log(show(value).padEnd(10), ...seen.map((text) => text.padEnd(11)), same ? '' : `was ${expected.map(show)}`);
}
const sent = HTTP.structured(new CloudEvent({ ...attributes, data: 0 }));
const back = HTTP.toEvent(sent);
console.log('structured, its own message:', sent.body, '->', show(back.data));
const { body } = HTTP.binary(new CloudEvent({ ...attributes, data: 'hello' }));
console.log('binary body of the string "hello":', body);
if (changed || back.data !== undefined || body !== 'hello') {
  console.error('the behaviour has changed');
  process.exit(1);
}
JS
timeout 60 node check.cjs
