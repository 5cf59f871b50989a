/** How the topics page shows a payload: in another layout, never in other words. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { jsonOf, previewOf } from '../../apps/dashboard/page/payload.js';

const bytes = (text) => new TextEncoder().encode(text);
const shown = (text) => jsonOf(bytes(text));
const preview = (raw) => previewOf({ raw, value: JSON.parse(raw) });

test('each token as it was published: digits, escapes, order and repeated keys', () => {
  for (const number of ['9007199254740993', '1.0', '-0', '0.1000', '1E+2', '1e400', '-1e-400', '100000000000000000000000.5']) {
    assert.equal(shown(number), number);
    assert.equal(shown(` {"n" :${number}} `), `{\n  "n": ${number}\n}`);
    assert.equal(preview(` {"n" :\n[${number} , 1.0]} `), `{"n":[${number},1.0]}`);
  }
  assert.equal(shown('{"b":1,"a":2,"2":3,"1":4,"b":5}'), '{\n  "b": 1,\n  "a": 2,\n  "2": 3,\n  "1": 4,\n  "b": 5\n}');
  assert.equal(shown('["caf\\u00e9","\\/\\"[{,:"]'), '[\n  "caf\\u00e9",\n  "\\/\\"[{,:"\n]');
  assert.equal(shown('{"__proto__":{}}'), '{\n  "__proto__": {}\n}');
  assert.equal(preview('"\\u0041"'), '"\\u0041"');
});

test('values that JSON.stringify keeps look as it shows them', () => {
  const values = [null, true, 'a "b" \\', 0.5, [], {}, [[]], [{}], { a: [], b: {} }, [1, [2, { c: [3] }], 'x'], { a: { b: { c: 1 } } }];
  for (const value of values) {
    for (const space of [undefined, 1, '\t', '\r\n']) {
      assert.equal(shown(JSON.stringify(value, undefined, space)), JSON.stringify(value, undefined, 2));
      assert.equal(preview(JSON.stringify(value, undefined, space)), JSON.stringify(value));
    }
  }
});

test('what is not JSON is not shown as JSON', () => {
  for (const text of ['', '{', '1 2', '{"a":1,}', 'NaN', '01', '+1', '"\t"', '\ufeff1', 'red']) assert.equal(shown(text), undefined);
  assert.equal(jsonOf(new Uint8Array([0x22, 0xff, 0x22])), undefined);
  assert.equal(previewOf({ raw: 'red "1"\n', value: 'red "1"\n' }), 'red "1"\n');
  assert.equal(previewOf({ raw: bytes('ab'), value: bytes('ab') }), '61 62');
});

test('a million bytes of anything are shown in the same order of size', () => {
  const million = 1_000_000;
  for (const text of [
    '['.repeat(million / 2) + ']'.repeat(million / 2),
    '{"a":'.repeat(million / 8) + '1' + '}'.repeat(million / 8),
    JSON.stringify('x'.repeat(million)),
    JSON.stringify('\\'.repeat(million / 2)),
    JSON.stringify(Array(million / 2).fill(1)),
  ]) {
    const json = shown(text);
    assert.ok(json === undefined || json.length < 5 * million, `${json?.length} characters`);
    assert.ok(previewOf({ raw: text, value: undefined }).length <= 121);
  }
});
