/** A server, a browser and the mosquitto tools for the tests; everything started here is stopped by its own handle. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';
import { DEADLINE_MS } from '../deadline.mjs';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const CHROMIUM_ARGUMENTS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  // The names of proxies.
  '--host-resolver-rules=MAP *.example.com 127.0.0.1',
];

/** The server under test: `LATCHBUS_BIN`, or what cargo built last in this checkout. */
export function serverBinary() {
  const places = [process.env.LATCHBUS_BIN, 'target/release/latchbus', 'target/debug/latchbus'];
  const found = places
    .filter(Boolean)
    .map((place) => path.resolve(ROOT, place))
    .find(existsSync);
  assert.ok(found, 'no server: build it with `cargo build` or name it in LATCHBUS_BIN');
  return found;
}

/**
 * Starts a server and waits for its ready line. Without `dataDir` it keeps nothing.
 * @param {import('node:test').TestContext} t stops the server at its end
 */
export async function startServer(t, { dataDir, http = '127.0.0.1:0', mqtt = '127.0.0.1:0', flags = [] } = {}) {
  const store = dataDir ? ['--data-dir', dataDir] : ['--ephemeral'];
  const child = spawn(serverBinary(), ['--http', http, '--mqtt', mqtt, ...store, ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  let log = '';
  child.stderr.on('data', (chunk) => (log = (log + chunk).slice(-8_000)));
  const server = {
    http: '',
    mqtt: '',
    url: '',
    /** Like pulling the plug: the process gets no chance to say goodbye. */
    async kill() {
      child.kill('SIGKILL');
      await ended;
    },
    /** As an operator does: connections are closed with 1001. */
    async stop() {
      child.kill('SIGTERM');
      await ended;
    },
  };
  t.after(server.kill);
  const ready = new Promise((resolve) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const [, httpAt, mqttAt, httpTls] = /^ready http=(\S+) mqtt=(\S+)(?: http-tls=(\S+))?/.exec(line) ?? [];
      if (httpAt) resolve({ http: httpAt, mqtt: mqttAt, url: `http://${httpAt}`, secureUrl: `https://${httpTls}` });
    });
  });
  const failed = ended.then((status) => assert.fail(`the server ended with ${status} before it was ready:\n${log}`));
  return Object.assign(server, await within(Promise.race([ready, failed]), 'the ready line'));
}

/** A directory of this test alone. @param {import('node:test').TestContext} t */
export async function temporaryDirectory(t) {
  const directory = await mkdtemp(path.join(tmpdir(), 'latchbus-browser-'));
  t.after(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }));
  return directory;
}

/** The program as a command: `latchbus cert` and the like. */
export async function runLatchbus(...command) {
  await promisify(execFile)(serverBinary(), command, { timeout: DEADLINE_MS });
}

/**
 * One Chromium for a file of tests; each test takes contexts (a browser profile each) from it. With `home` it has that
 * directory for its own, where it finds the authorities that it trusts.
 */
export function useBrowser({ home = async () => undefined } = {}) {
  let browser;
  before(async () => {
    const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
    const directory = await home();
    const env = directory ? { ...process.env, HOME: directory } : undefined;
    browser = await chromium.launch({ executablePath, args: CHROMIUM_ARGUMENTS, timeout: DEADLINE_MS, env });
  });
  after(() => browser?.close());
  return {
    /** @param {import('node:test').TestContext} t @param {import('playwright-core').BrowserContextOptions} [options] */
    async profile(t, options) {
      const context = await browser.newContext(options);
      context.setDefaultTimeout(DEADLINE_MS);
      t.after(() => context.close());
      return context;
    },
  };
}

/**
 * Opens the dashboard. `page.complaints` collects what the browser had to say: exceptions, console errors and
 * warnings, violations of the Content-Security-Policy (Chromium reports them on the console). What could not be loaded is
 * named by its address behind the text.
 * @param {import('playwright-core').BrowserContext} profile
 */
export async function openPage(profile, url) {
  const page = await profile.newPage();
  page.complaints = [];
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  page.on('console', (message) => {
    if (!['error', 'warning'].includes(message.type())) return;
    const text = message.text();
    page.complaints.push(text.startsWith('Failed to load resource') ? `${text} ${message.location().url}` : text);
  });
  await page.goto(url);
  return page;
}

/** What the page shows: the counts, all own unconfirmed clicks, and the state of the connection. */
export function shown(page) {
  return page.evaluate(() => {
    const digits = (id) => Number(document.getElementById(id).textContent.replace(/\D/g, '') || NaN);
    return {
      phase: document.body.dataset.phase,
      red: digits('red-count'),
      blue: digits('blue-count'),
      pending: digits('pending'),
    };
  });
}

/** Waits until the page shows what is expected (a part of what `shown` gives). */
export async function showsSoon(page, expected) {
  let last;
  const fits = async () => {
    last = await shown(page);
    return Object.entries(expected).every(([key, value]) => last[key] === value);
  };
  await until(fits, () => `expected ${JSON.stringify(expected)}, the page shows ${JSON.stringify(last)}`);
}

/** Asks again every few milliseconds until the answer is yes. */
export async function until(condition, complaint) {
  const end = Date.now() + DEADLINE_MS;
  while (!(await condition())) {
    if (Date.now() > end) assert.fail(complaint());
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come within ${DEADLINE_MS} ms`)), DEADLINE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** `mosquitto_sub -v` on a filter: `line(text)` resolves when that line has been printed. */
export function mosquittoSub(t, server, filter) {
  const [host, port] = server.mqtt.split(':');
  const child = spawn('mosquitto_sub', ['-h', host, '-p', port, '-t', filter, '-v'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise((resolve) => child.once('close', resolve));
  t.after(async () => {
    child.kill();
    await ended;
  });
  const lines = [];
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
  return {
    lines,
    line: (text) =>
      until(
        () => lines.includes(text),
        () => `expected the line ${text}, got\n${lines.join('\n')}`,
      ),
  };
}

/** `mosquitto_pub`: resolves when it has ended well. */
export async function mosquittoPub(server, topic, ...message) {
  const status = await mosquittoPubStatus(server, topic, message);
  assert.equal(status, 0, `mosquitto_pub ended with ${status}`);
}

/** `mosquitto_pub` (3.1.1) with what the server rejects: it ends when its connection has been closed. */
export async function mosquittoPubRejected(server, topic, ...message) {
  const CONNECTION_LOST = 7;
  assert.equal(await mosquittoPubStatus(server, topic, message), CONNECTION_LOST);
}

function mosquittoPubStatus(server, topic, message) {
  const [host, port] = server.mqtt.split(':');
  const child = spawn('mosquitto_pub', ['-h', host, '-p', port, '-q', '1', '-t', topic, ...message], {
    stdio: 'inherit',
  });
  const ended = new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', resolve);
  });
  return within(ended, 'the end of mosquitto_pub');
}

/**
 * A TCP relay in front of the server, for what a cable can do: `freeze` keeps connections open and moves no byte
 * any more, as a lost network does; `thaw` ends those and lets new connections through again.
 */
export async function startRelay(t, target) {
  const [host, port] = target.split(':');
  const sockets = new Set();
  let isFrozen = false;
  const relay = net.createServer((near) => {
    const far = net.connect(Number(port), host);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ]) {
      sockets.add(from);
      from.on('data', (chunk) => from.isCut || to.write(chunk));
      from.on('error', () => {});
      from.on('close', () => {
        sockets.delete(from);
        if (!from.isCut) to.destroy();
      });
    }
    if (isFrozen) near.isCut = far.isCut = true;
  });
  await new Promise((resolve) => relay.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    relay.close();
  });
  return {
    url: `http://127.0.0.1:${relay.address().port}`,
    freeze() {
      isFrozen = true;
      for (const socket of sockets) socket.isCut = true;
    },
    thaw() {
      isFrozen = false;
      for (const socket of sockets) if (socket.isCut) socket.destroy();
    },
  };
}

/**
 * A bare MQTT 3.1.1 client, QoS 0, for thousands of messages a second and for identifiers that no library would take: `flushed`
 * resolves when the server has read all that came before, `closed` when the connection has ended.
 */
export async function mqttClient(t, server, { clientId = 'load', clean = true, filters = [] } = {}) {
  const [host, port] = server.mqtt.split(':');
  const socket = net.connect(Number(port), host);
  socket.setNoDelay(true);
  socket.on('error', () => {});
  t.after(() => socket.destroy());
  const closed = new Promise((resolve) => socket.once('close', resolve));
  const field = (text) => {
    const bytes = Buffer.from(text);
    return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 0xff]), bytes]);
  };
  const packet = (head, body) => {
    const length = [];
    let rest = body.length;
    do {
      length.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
      rest >>= 7;
    } while (rest > 0);
    return Buffer.concat([Buffer.from([head, ...length]), body]);
  };
  let received = Buffer.alloc(0);
  const answers = [];
  socket.on('data', (chunk) => {
    received = Buffer.concat([received, chunk]);
    while (received.length >= 2 && received.length >= 2 + received[1]) {
      answers.push(received[0]);
      received = received.subarray(2 + received[1]);
    }
  });
  const answer = async (head) => {
    await until(
      () => answers.includes(head),
      () => `the MQTT packet ${head} from the server`,
    );
    answers.splice(answers.indexOf(head), 1);
  };
  socket.write(packet(0x10, Buffer.concat([field('MQTT'), Buffer.from([4, clean ? 2 : 0, 0, 0]), field(clientId)])));
  await answer(0x20);
  for (const filter of filters) {
    socket.write(packet(0x82, Buffer.concat([Buffer.from([0, 1]), field(filter), Buffer.from([1])])));
    await answer(0x90);
  }
  return {
    closed,
    publish(topic, message, { retain = false } = {}) {
      socket.write(packet(retain ? 0x31 : 0x30, Buffer.concat([field(topic), Buffer.from(message)])));
    },
    async flushed() {
      socket.write(Buffer.from([0xc0, 0]));
      await answer(0xd0);
    },
    async leave() {
      socket.end(Buffer.from([0xe0, 0]));
      await closed;
    },
  };
}

/** Payloads that a reader who goes by values, and not by what was published, gives back as something else. */
export const HOSTILE = [
  '9007199254740993',
  '-0',
  '1.0',
  '0.1000',
  '1E+2',
  '1e400',
  '-1e-400',
  '123456789012345678901234567890.5',
  '{"c": 21.50, "big": 9007199254740993}',
  '{"b":1,"a":2,"2":3,"1":4,"b":5}',
  '{"__proto__":{"x":1.0}}',
  '["caf\\u00e9","\\/","\\ud83d\\ude00",1.10]',
  '"\\u0041"',
  ' {\n\t"a" : [ 1.0 , -0 ]\r\n}\r\n',
  '[1.0, "\\",\\"payload\\":", ",\\"rev\\":7,\\"at\\":8"]',
  '"\\ud800"',
  `${'['.repeat(100)}1.0${']'.repeat(100)}`,
  '\ufeff{"a":1.0}',
  'line\r\nline\r\n',
  'null',
  '{}',
  '[ ]',
];

/** Publishes retained by HTTP, byte for byte. */
export async function put(server, topic, body) {
  const response = await fetch(`${server.url}/api/v1/topics/${encodeURIComponent(topic)}`, { method: 'PUT', body });
  assert.ok(response.ok, `${response.status} ${await response.text()}`);
}

/** The bytes that the hub keeps, as text. */
export async function kept(server, topic) {
  const response = await fetch(`${server.url}/api/v1/topics/${encodeURIComponent(topic)}`);
  return Buffer.from(await response.arrayBuffer()).toString();
}
