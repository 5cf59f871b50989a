/** The browser module as the npm package that other people use: RxJS, `for await`, a store's contract, its size. */
import assert from 'node:assert/strict';
import { readFile, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { connect } from 'latchbus';
import { counter } from 'latchbus/counter';
import { filter, firstValueFrom, from, map, retry, shareReplay, take, toArray } from 'rxjs';
import { webSocket } from 'rxjs/webSocket';
import WebSocket from 'ws';
import { HOSTILE, kept, mosquittoPub, put, startServer, temporaryDirectory, until } from './support.mjs';

const PAGE = fileURLToPath(new URL('../../apps/dashboard/page/', import.meta.url));
const MAX_COMPRESSED_BYTES = 7_000;

async function open(t) {
  const server = await startServer(t);
  const sent = [];
  class Recorded extends WebSocket {
    send(text) {
      sent.push(JSON.parse(text));
      super.send(text);
    }
  }
  const bus = connect(`${server.url}/ws`, { WebSocket: Recorded });
  t.after(() => bus.close());
  await firstValueFrom(from(livePhase(bus)));
  return { server, bus, sent };
}

/** Resolves when the bus is live. */
async function* livePhase(bus) {
  for await (const { phase } of bus.state) {
    if (phase !== 'live') continue;
    yield phase;
    return;
  }
}

const arrived = (topic, value) =>
  until(
    () => topic.value !== undefined && JSON.stringify(topic.value.value) === JSON.stringify(value),
    () => `expected ${JSON.stringify(value)}, the store has ${JSON.stringify(topic.value)}`,
  );

test("RxJS: from(topic) is the tutorial's stream: connected before the first subscriber, shared, replayed", async (t) => {
  const { bus, sent } = await open(t);
  const topic = bus.topic('lab/clicks');
  await bus.publish('lab/clicks', { red: 1, blue: 3 }, { retain: true });
  // No subscriber yet, and it has listened: that is publishReplay(1) with connect().
  await arrived(topic, { red: 1, blue: 3 });

  const percent = ({ red, blue }) => ({ red: (100 * red) / (red + blue), blue: (100 * blue) / (red + blue) });
  const meter = from(topic).pipe(
    map(({ value }) => value),
    map(percent),
  );
  const early = firstValueFrom(meter.pipe(take(3), toArray()));
  assert.deepEqual(await firstValueFrom(meter), { red: 25, blue: 75 }, 'the last value, to whoever comes');
  await bus.publish('lab/clicks', { red: 2, blue: 2 }, { retain: true });
  await arrived(topic, { red: 2, blue: 2 });
  assert.deepEqual(await firstValueFrom(meter), { red: 50, blue: 50 });
  await bus.publish('lab/clicks', { red: 3, blue: 1 }, { retain: true });
  assert.deepEqual(await early, [
    { red: 25, blue: 75 },
    { red: 50, blue: 50 },
    { red: 75, blue: 25 },
  ]);
  assert.equal(sent.filter(({ op }) => op === 'subscribe').length, 1, 'one subscription for all of them');
  assert.equal(bus.topic('lab/clicks'), topic);
});

test("a topic is a store in Svelte's sense, and replays each topic of a filter", async (t) => {
  const { server, bus } = await open(t);
  await mosquittoPub(server, 'lab/a', '-r', '-m', '1');
  await mosquittoPub(server, 'lab/b', '-r', '-m', 'two');
  const topic = bus.topic('lab/+');
  await until(
    () => topic.last.size === 2,
    () => 'both topics',
  );
  const seen = [];
  const stop = topic.subscribe(({ topic, value }) => seen.push([topic, value]));
  assert.deepEqual(
    seen,
    [
      ['lab/a', 1],
      ['lab/b', 'two'],
    ],
    'at once, before subscribe returns',
  );
  stop();
  await bus.clear('lab/a');
  await until(
    () => topic.last.size === 1,
    () => 'one topic is cleared',
  );
  assert.equal(seen.length, 2, 'nothing after the end');
  assert.equal(topic.value.cleared, true);
});

test('a store passed on in pieces works: subscribe, snapshot, messages, publish, clear, retry, topic, click', async (t) => {
  const { bus } = await open(t);
  const { publish, clear, topic: listen, retry } = bus;
  const { subscribe, snapshot, messages } = listen('lab/n');
  const seen = [];
  const stop = subscribe(({ value }) => seen.push(value));
  await publish('lab/n', 1, { retain: true });
  await until(
    () => seen.length === 1,
    () => 'the value',
  );
  assert.equal(snapshot().value, 1);
  assert.equal(messages().length, 1);
  await clear('lab/n');
  await until(
    () => messages().length === 0,
    () => 'it is cleared',
  );
  assert.equal(snapshot().cleared, true);
  stop();
  retry();
  const phases = bus.state.subscribe;
  phases(({ phase }) => seen.push(phase));
  assert.equal(seen.at(-1), 'live');
  assert.equal(bus.state.snapshot().phase, 'live');
  const clicks = counter('pieces', bus);
  t.after(() => clicks.close());
  const { click, subscribe: onScore, snapshot: score } = clicks;
  onScore(() => {});
  click('red');
  await until(
    () => score().red === 1 && score().pending.red === 0,
    () => 'a confirmed click',
  );
  assert.ok(Object.isFrozen(score().pending));
});

test('snapshot() and messages() are frozen, and the same until something changes', async (t) => {
  const { bus } = await open(t);
  const topic = bus.topic('lab/+');
  assert.equal(topic.snapshot(), undefined);
  const none = topic.messages();
  assert.deepEqual([none, none === topic.messages(), Object.isFrozen(none)], [[], true, true]);
  await bus.publish('lab/a', { deep: [{ n: 1 }] }, { retain: true });
  await bus.publish('lab/b', new Uint8Array([0, 255]), { retain: true });
  await bus.publish('lab/c', null, { retain: true });
  await until(
    () => topic.messages().length === 3,
    () => 'three topics',
  );
  const [a, b] = topic.messages();
  const before = topic.messages();
  assert.equal(before, topic.messages());
  assert.equal(topic.snapshot(), topic.snapshot());
  assert.equal(topic.snapshot(), before[2]);
  assert.throws(() => (a.value.deep[0].n = 2), TypeError);
  assert.throws(() => (a.value = 2), TypeError);
  assert.throws(() => before.push(a), TypeError);
  assert.deepEqual([...b.value], [0, 255]);
  await bus.publish('lab/a', { deep: [] }, { retain: true });
  await until(
    () => topic.messages() !== before,
    () => 'another array',
  );
  assert.deepEqual(
    topic.messages().map(({ topic }) => topic),
    ['lab/b', 'lab/c', 'lab/a'],
  );
  assert.equal(topic.messages()[0], b, 'what has not changed is the same');
  assert.deepEqual(before[0].value.deep, [{ n: 1 }], 'an earlier one stays as it was');
});

test('history(): pages backwards, each message once; before the first connection too', async (t) => {
  const file = path.join(await temporaryDirectory(t), 'latchbus.toml');
  await writeFile(file, '[[history]]\nfilter = "chat/+"\nkeep = 100\n');
  const server = await startServer(t, { flags: ['--config', file] });
  for (let n = 0; n < 25; n++) await put(server, 'chat/lobby', JSON.stringify({ n }));
  const bus = connect(`${server.url}/ws`, { WebSocket });
  t.after(() => bus.close());
  const { history } = bus;
  let page = await history('chat/lobby', { limit: 10 });
  assert.deepEqual(page.messages.at(-1).value, { n: 24 });
  const all = [...page.messages];
  while (page.more) {
    await bus.publish('chat/lobby', { n: 100 }, { retain: true });
    page = await history('chat/lobby', { before: page.messages[0].rev, limit: 10 });
    all.unshift(...page.messages);
  }
  assert.deepEqual(
    all.map(({ value }) => value.n),
    [...Array(25).keys()],
  );
  const [{ topic, rev, at, cleared, epoch, raw, bytes }] = all;
  assert.deepEqual([topic, cleared, raw, bytes], ['chat/lobby', false, undefined, undefined]);
  assert.ok(rev > 0 && at > 0 && epoch === bus.state.value.epoch);
  await put(server, 'chat/bytes', new Uint8Array([0, 255]));
  await put(server, 'chat/bytes', 'hello');
  const [first, second] = (await bus.history('chat/bytes')).messages;
  assert.deepEqual([first.raw, first.bytes, second.raw, second.bytes], [new Uint8Array([0, 255]), 2, 'hello', 5]);
  assert.deepEqual(await bus.history('chat/none'), { messages: [], more: false });
  await assert.rejects(bus.history('chat/+'), { code: 'invalid_topic' });
  await assert.rejects(bus.history('chat/lobby', { limit: 0 }), { code: 'bad_message' });
});

test("RxJS' own webSocket ends at a clean close, and shareReplay goes on giving a dead value", async (t) => {
  const server = await startServer(t);
  await put(server, 'lab/n', '1');
  const frames = webSocket({ url: `${server.url.replace('http', 'ws')}/ws`, WebSocketCtor: WebSocket });
  const own = frames.pipe(
    filter(({ op }) => op === 'message'),
    map(({ payload }) => payload),
    retry({ delay: 10 }),
    shareReplay(1),
  );
  let isComplete = false;
  own.subscribe({ complete: () => (isComplete = true) });
  frames.next({ op: 'subscribe', id: 1, filter: 'lab/n' });
  assert.equal(await firstValueFrom(own), 1);
  const bus = connect(`${server.url}/ws`, { WebSocket, random: () => 0.01 });
  t.after(() => bus.close());
  const ours = from(bus.topic('lab/n')).pipe(map(({ value }) => value));
  assert.equal(await firstValueFrom(ours), 1);

  const { port } = new URL(server.url);
  await server.stop();
  await until(
    () => isComplete,
    () => 'the end of the stream, in spite of retry()',
  );
  const next = await startServer(t, { http: `127.0.0.1:${port}` });
  await put(next, 'lab/n', '2');
  assert.equal(await firstValueFrom(ours.pipe(filter((n) => n === 2))), 2, 'from(topic) has come back');
  assert.equal(await firstValueFrom(own), 1, 'the other gives what was true once');
});

test('for await: a slow loop gets the newest value of each topic, and ends with the topic', async (t) => {
  const { bus } = await open(t);
  const topic = bus.topic('lab/n');
  await bus.publish('lab/n', 0, { retain: true });
  await arrived(topic, 0);
  const taken = [];
  for await (const { value } of topic) {
    taken.push(value);
    if (value === 50) topic.close();
    if (value !== 0) continue;
    for (let n = 1; n <= 50; n++) await bus.publish('lab/n', n, { retain: true });
    await arrived(topic, 50);
  }
  assert.deepEqual(taken, [0, 50]);
});

test('a refused publish says why, and bytes and text arrive as they were sent', async (t) => {
  const { bus } = await open(t);
  await assert.rejects(bus.publish('clicks/main/values', { red: 1, blue: 1 }, { retain: true }), { code: 'not_allowed' });
  await assert.rejects(bus.publish('a/+', 1), { code: 'invalid_topic' });
  const topic = bus.topic('raw/#');
  for (const value of [new Uint8Array([0, 255, 128]), 'grün', { n: [1, null] }]) {
    await bus.publish('raw/x', value, { retain: true });
    await until(
      () => topic.value?.value?.toString() === value.toString(),
      () => `expected ${value}`,
    );
    assert.deepEqual(topic.value.value, value);
  }
});

test('`raw` is what was published, byte for byte, and publishes the same again', async (t) => {
  const { server, bus } = await open(t);
  const topic = bus.topic('raw/+/in');
  for (const [i, payload] of HOSTILE.entries()) {
    await put(server, `raw/${i}","payload":1,"rev":2/in`, payload);
  }
  await until(
    () => topic.last.size === HOSTILE.length,
    () => `all of them, not ${topic.last.size}`,
  );
  const messages = [...topic.last.values()];
  for (const [i, payload] of HOSTILE.entries()) {
    const { raw, bytes } = messages[i];
    assert.equal(raw, payload);
    assert.equal(bytes, Buffer.byteLength(payload));
    await bus.publish(`raw/${i}/out`, raw, { retain: true });
    assert.equal(await kept(server, `raw/${i}/out`), payload);
  }
  const bytes = new Uint8Array([0, 255, 128]);
  await put(server, 'raw/bytes/in', bytes);
  await until(
    () => topic.value.topic === 'raw/bytes/in',
    () => 'the bytes',
  );
  assert.deepEqual(topic.value.raw, bytes);
  await bus.clear('raw/bytes/in');
  await until(
    () => topic.value.cleared,
    () => 'it is cleared',
  );
  assert.equal(topic.value.raw, undefined);
});

test('connect() and publish(): what is published before the first connection goes out with it, in order', async (t) => {
  const server = await startServer(t);
  const bus = connect(`${server.url}/ws`, { WebSocket });
  t.after(() => bus.close());
  const events = bus.topic('lab/event', { mode: 'every' });
  const seen = [];
  events.subscribe(({ value }) => seen.push(value));
  let isFirst = true;
  bus.state.subscribe(({ phase }) => {
    if (phase !== 'live' || !isFirst) return;
    isFirst = false;
    void bus.publish('lab/event', 4);
  });
  const changing = { n: 1 };
  const early = [changing, 2, 3].map((value) => bus.publish('lab/event', value));
  changing.n = 9;
  const acks = await Promise.all(early);
  assert.deepEqual((await bus.ready).phase, 'live');
  assert.ok(acks.every(({ rev }, i) => i === 0 || rev > acks[i - 1].rev));
  await until(
    () => seen.length === 4,
    () => `four events, not ${JSON.stringify(seen)}`,
  );
  assert.deepEqual(seen, [{ n: 1 }, 2, 3, 4]);
  // Afterwards nothing waits: who publishes knows better what is still worth saying.
  await server.kill();
  await until(
    () => bus.state.value.phase !== 'live',
    () => 'the connection is lost',
  );
  await assert.rejects(bus.publish('lab/event', 5), { code: 'disconnected' });
  bus.close();
  await assert.rejects(bus.publish('lab/event', 6), { code: 'closed' });
});

test('nobody listens: it tries again, also with the package ws, whose errors end a program that does not take them', async (t) => {
  const server = await startServer(t);
  await server.kill();
  const bus = connect(`${server.url}/ws`, { WebSocket, random: () => 0 });
  t.after(() => bus.close());
  let attempts = 0;
  bus.state.subscribe(({ phase }) => (attempts += phase === 'offline'));
  await until(
    () => attempts >= 3,
    () => `three attempts, not ${attempts}`,
  );
});

test('a hub that is not there: early publishes end after 10 s, or with the bus', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  class Silent {
    static sent = [];
    send = (data) => Silent.sent.push(data);
    close() {}
  }
  const bus = connect('ws://127.0.0.1:9/ws', { WebSocket: Silent, random: () => 1 });
  const outcomes = [];
  const note = (promise) => promise.then(() => outcomes.push('acknowledged'), ({ code }) => outcomes.push(code));
  note(bus.publish('lab/a', 1));
  t.mock.timers.tick(6_000);
  note(bus.publish('lab/a', 2));
  t.mock.timers.tick(3_999);
  await Promise.resolve();
  assert.deepEqual(outcomes, []);
  t.mock.timers.tick(1);
  await new Promise(setImmediate);
  assert.deepEqual(outcomes, ['disconnected']);
  for (let i = 1; i < 1_000; i++) bus.publish('lab/a', i).catch(() => {});
  await assert.rejects(bus.publish('lab/a', 3), { code: 'full' });
  bus.close();
  await assert.rejects(bus.ready, { code: 'closed' });
  await new Promise(setImmediate);
  assert.deepEqual(outcomes, ['disconnected', 'closed']);
  assert.deepEqual(Silent.sent, []);
});

test('what is above a limit of the hub, or no JSON, is refused here, and the connection goes on', async (t) => {
  const server = await startServer(t);
  const bus = connect(`${server.url}/ws`, { WebSocket });
  t.after(() => bus.close());
  const early = bus.publish('lab/big', 'x'.repeat(10_000_000)).then(assert.fail, (error) => error);
  const { limits } = await bus.ready;
  const most = limits.payload_bytes;
  assert.equal((await early).code, 'too_large');
  for (const value of ['x'.repeat(most + 1), 'ü'.repeat(most / 2 + 1), new Uint8Array(most + 1), ['x'.repeat(most)]]) {
    await assert.rejects(bus.publish('lab/big', value), ({ code, message }) => {
      return code === 'too_large' && message.includes(String(most)) && /payload of \d+ bytes/.test(message);
    });
  }
  await assert.rejects(bus.publish('t'.repeat(4_000_000), 1), { code: 'invalid_topic' });
  const loop = {};
  loop.loop = loop;
  for (const value of [undefined, () => {}, 1n, loop]) await assert.rejects(bus.publish('lab/no', value), { code: 'bad_message' });
  const errors = [];
  bus.topic('f'.repeat(4_000_000)).subscribe({ error: ({ code }) => errors.push(code) });
  await until(
    () => errors.length === 1,
    () => 'an error of the subscription',
  );
  assert.deepEqual(errors, ['invalid_filter']);
  // What just fits does, however long its escapes would be.
  for (const value of ['x'.repeat(most), '\u0001'.repeat(most), '"'.repeat(most), new Uint8Array(most)]) {
    await bus.publish('lab/big', value, { retain: true });
    assert.equal((await (await fetch(`${server.url}/api/v1/topics/lab/big`)).arrayBuffer()).byteLength, most);
  }
  assert.equal(bus.state.value.phase, 'live');
});

test('a filter above the limit, subscribed before the first connection, does not end it', async (t) => {
  const server = await startServer(t);
  const bus = connect(`${server.url}/ws`, { WebSocket });
  t.after(() => bus.close());
  const errors = [];
  bus.topic('f'.repeat(4_000_000)).subscribe({ error: ({ code }) => errors.push(code) });
  await bus.publish('lab/a', 1, { retain: true });
  assert.deepEqual(errors, ['invalid_filter']);
});

test('counter(room): shown at once, confirmed by the hub, one store a room', async (t) => {
  const { bus } = await open(t);
  const clicks = counter('lab', bus);
  t.after(() => clicks.close());
  assert.equal(counter('lab', bus), clicks);
  assert.throws(() => counter('a/b', bus), RangeError);
  const seen = [];
  clicks.subscribe((score) => seen.push(score));
  for (let i = 0; i < 3; i++) clicks.click('red');
  await until(
    () => clicks.value.red === 3 && clicks.value.pending.red === 0 && clicks.value.isLive,
    () => `three confirmed clicks, not ${JSON.stringify(clicks.value)}`,
  );
  assert.ok(seen.every(({ red }, i) => i === 0 || red >= seen[i - 1].red));
  const values = bus.topic('clicks/lab/values');
  await arrived(values, { red: 3, blue: 0 });
});

/** What a page loads: itself, what it names, and what that imports. @returns {Promise<number>} bytes, each with gzip -9 */
async function loaded(page) {
  const files = [page];
  let total = 0;
  for (const file of files) {
    const source = await readFile(PAGE + file);
    total += gzipSync(source, { level: 9 }).length;
    if (file.endsWith('.svg')) continue;
    const names = source.toString().matchAll(/(?:^import .*|^} from |(?:href|src)=)["']([./\w-]+\.(?:js|css|svg))["']/gm);
    for (const [, name] of names) {
      const next = path.posix.normalize(name);
      if (!files.includes(next)) files.push(next);
    }
  }
  return total;
}

test('latchbus.js is one module without dependencies, below 7 KB compressed; a page is a few tens of KB', async () => {
  const source = await readFile(`${PAGE}latchbus.js`);
  assert.doesNotMatch(source.toString(), /^\s*import\b|\bimport\(|^export .* from /m);
  const compressed = gzipSync(source, { level: 9 }).length;
  const pages = (await readdir(PAGE)).filter((file) => file.endsWith('.html'));
  const totals = await Promise.all(pages.map(async (page) => [page, await loaded(page)]));
  console.log(`# latchbus.js ${compressed} bytes, pages ${totals.join(' ').replaceAll(',', ' ')}, each with gzip -9`);
  assert.ok(compressed < MAX_COMPRESSED_BYTES, `${compressed} bytes`);
  for (const [page, total] of totals) assert.ok(total < 48_000, `${page}: ${total} bytes`);
});
