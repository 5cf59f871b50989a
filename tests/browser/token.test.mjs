/** The browser module where who uses it has tokens that end. */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { connect } from 'latchbus';
import { withToken } from 'latchbus/token';
import WebSocket from 'ws';
import { startServer, temporaryDirectory, until } from './support.mjs';

const SECRET = 'a secret of at least 32 bytes, for tests';

const encoded = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

/** A token that ends so many whole seconds from now. */
function tokenFor(sub, secs, secret = SECRET) {
  const exp = Math.floor(Date.now() / 1000) + secs;
  const signed = `${encoded({ alg: 'HS256' })}.${encoded({ sub, exp })}`;
  const token = `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
  return { token, ends_ms: exp * 1000 };
}

/** A server that takes tokens, with no leeway, and a way to it that counts the connections. */
async function start(t, { anonymous = false } = {}) {
  const directory = await temporaryDirectory(t);
  const file = (name) => path.join(directory, name);
  await writeFile(file('secret'), `${SECRET}\n`);
  await writeFile(file('config.toml'), `anonymous = ${anonymous}\n[tokens]\nkeys = "${file('secret')}"\nleeway_secs = 0\n`);
  const server = await startServer(t, { flags: ['--config', file('config.toml')] });
  const seen = { sockets: 0, states: [], sent: [] };
  class Counted extends WebSocket {
    constructor(...options) {
      super(...options);
      seen.sockets++;
    }
    send(text) {
      seen.sent.push(JSON.parse(text));
      super.send(text);
    }
  }
  const open = (token) => {
    // Without a pause before the next attempt, so that a loop would show.
    const bus = connect(`${server.url}/ws`, { ...withToken(token, { WebSocket: Counted }), random: () => 0 });
    bus.state.subscribe((state) => seen.states.push(state));
    t.after(() => bus.close());
    return bus;
  };
  return { server, seen, open };
}

const becomes = (bus, phase) =>
  until(
    () => bus.state.value.phase === phase,
    () => `expected ${phase}, it is ${JSON.stringify(bus.state.value)}`,
  );

test('a connection goes on when its token ends, with the next one', async (t) => {
  const { seen, open } = await start(t);
  const tokens = [];
  const bus = open(async () => {
    tokens.push(tokenFor('Zoë', 3));
    return tokens.at(-1).token;
  });
  await bus.ready;
  assert.equal(bus.user, 'Zoë');
  await bus.publish('lab/a', 1, { retain: true });
  await until(
    () => tokens.length > 1 && Date.now() > tokens[0].ends_ms + 300,
    () => 'the first token ends',
  );
  await bus.publish('lab/a', 2, { retain: true });
  assert.equal(seen.sockets, 1);
  assert.equal(bus.user, 'Zoë');
  const phases = new Set(seen.states.map(({ phase }) => phase));
  assert.deepEqual([...phases], ['connecting', 'live']);
  assert.equal(seen.sent[0].op, 'auth');
});

test('a token that is refused is not tried again until somebody says so', async (t) => {
  const { server, seen, open } = await start(t);
  for (const wrong of ['', 'x', 'a.b.c', 'ü.ü.ü', tokenFor('anna', 60, `${SECRET} of others`).token, tokenFor('anna', -5).token]) {
    const before = seen.sockets;
    let asked = 0;
    let token = wrong;
    const bus = open(() => (asked++, token));
    const published = bus.publish('lab/a', 1);
    await becomes(bus, 'offline');
    const { signedOut, cause, retryAt } = bus.state.value;
    assert.deepEqual([signedOut, retryAt], [true, Infinity], wrong);
    assert.match(cause, /token|expired|credentials/, wrong);
    // Longer than a next attempt takes to come here.
    for (let i = 0; i < 5; i++) await fetch(`${server.url}/healthz`);
    assert.deepEqual([asked, seen.sockets - before, bus.state.value.phase], [1, 1, 'offline'], wrong);
    token = tokenFor('anna', 60).token;
    bus.retry();
    await becomes(bus, 'live');
    await published;
    assert.equal(bus.state.value.cause, undefined);
    bus.close();
  }
});

test('a token that nobody renews ends its connection, and is not tried again', async (t) => {
  const { seen, open } = await start(t);
  const { token } = tokenFor('anna', 2);
  let asked = 0;
  const bus = open(() => (asked++, token));
  await bus.ready;
  await until(
    () => bus.state.value.phase === 'offline' && bus.state.value.cause,
    () => `the end of the token, not ${JSON.stringify(bus.state.value)}`,
  );
  assert.match(bus.state.value.cause, /expired/);
  assert.equal(bus.state.value.retryAt, Infinity);
  // One connection, and one more on which the hub has said it.
  assert.equal(seen.sockets, 2);
  assert.ok(asked <= 5, `asked ${asked} times`);
});

test('while there is no token it is asked for again, and the cause is said', async (t) => {
  const { seen, open } = await start(t, { anonymous: true });
  let asked = 0;
  const bus = open(async () => {
    if (++asked < 4) throw new Error('nobody issues tokens now');
    return tokenFor('anna', 60).token;
  });
  await becomes(bus, 'live');
  const offline = seen.states.filter(({ phase }) => phase === 'offline');
  assert.equal(offline.length, 3);
  for (const { cause, signedOut, retryAt } of offline) {
    assert.deepEqual([cause, signedOut], ['nobody issues tokens now', false]);
    assert.ok(Number.isFinite(retryAt));
  }
  assert.equal(bus.user, 'anna');
});

test('a bus that is closed while it waits for a token stays closed', async (t) => {
  const { seen, open } = await start(t);
  let give = () => {};
  const asked = new Promise((resolve) => {
    const bus = open(() => {
      resolve(bus);
      return new Promise((resolve) => (give = resolve));
    });
  });
  const bus = await asked;
  bus.close();
  give(tokenFor('anna', 60).token);
  await Promise.resolve();
  assert.equal(bus.state.value.phase, 'closed');
  assert.deepEqual(seen.sent, []);
});
