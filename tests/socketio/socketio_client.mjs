// socket.io-client over WebSocket, over polls, and with the upgrade, against latchbus.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, connect as tcp } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { deepStrictEqual as same, ok } from 'node:assert';
import { io } from 'socket.io-client';
import { DEADLINE_MS } from '../deadline.mjs';

class Server {
  /** Those that run, whichever check has started them. */
  static running = new Set();

  static async start({ directory, port = 0, more = [] } = {}) {
    const storage = directory ? ['--data-dir', directory] : ['--ephemeral'];
    const args = [...storage, '--http', `127.0.0.1:${port}`, '--mqtt', 'off', '--log', 'off', ...more];
    const server = new Server();
    server.process = spawn(process.env.LATCHBUS, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    Server.running.add(server);
    const [line] = await once(createInterface(server.process.stdout), 'line');
    server.port = Number(line.match(/http=127\.0\.0\.1:(\d+)/)[1]);
    server.url = `http://127.0.0.1:${server.port}`;
    return server;
  }

  async end(signal = 'SIGTERM') {
    Server.running.delete(this);
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const exited = once(this.process, 'exit');
    this.process.kill(signal);
    await exited;
  }
}

const directories = [];

function temporary() {
  const directory = mkdtempSync(join(tmpdir(), 'latchbus-'));
  directories.push(directory);
  return directory;
}

async function until(condition, what) {
  const end = Date.now() + DEADLINE_MS;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** A socket that notes what comes. */
function open(url, transports, options = {}) {
  const socket = io(url, { transports, forceNew: true, reconnectionDelay: 10, reconnectionDelayMax: 50, ...options });
  socket.events = [];
  socket.connects = [];
  socket.disconnects = [];
  socket.onAny((...event) => socket.events.push(event));
  socket.on('connect', () => socket.connects.push(socket.recovered));
  socket.on('disconnect', (reason) => socket.disconnects.push(reason));
  return socket;
}

const values = (socket) => socket.events.filter(([name]) => name === 'clickValues').map((event) => event[1]);

async function shows(socket, expected) {
  await until(() => {
    const last = values(socket).at(-1);
    return last && last.red === expected.red && last.blue === expected.blue;
  }, `${JSON.stringify(expected)} but ${JSON.stringify(values(socket).at(-1))}`);
}

const checks = {
  async 'the tutorial'(server, transports) {
    const [one, other] = [open(server.url, transports), open(server.url, transports)];
    await shows(one, { red: 0, blue: 0 });
    await shows(other, { red: 0, blue: 0 });
    one.emit('redClicked');
    other.emit('blueClicked');
    one.emit('redClicked');
    await shows(one, { red: 2, blue: 1 });
    await shows(other, { red: 2, blue: 1 });
    const late = open(server.url, transports);
    await shows(late, { red: 2, blue: 1 });
    same(values(late).length, 1);
    for (const socket of [one, other, late]) socket.close();
  },

  async 'the transport is the one that was asked for'(server, transports) {
    const socket = open(server.url, transports);
    await until(() => socket.connected && socket.io.engine.transport.name === transports.at(-1), transports.at(-1));
    ok(socket.id && socket.id !== socket.io.engine.id);
    socket.close();
  },

  async 'a click counts once, whatever is sent again'(server, transports) {
    const proxy = await Proxy.before(server.port);
    const socket = open(proxy.url, transports, { retries: 20, ackTimeout: 1_000 });
    await shows(socket, { red: 0, blue: 0 });
    const answers = [];
    for (let click = 0; click < 60; click += 1) {
      socket.emit('redClicked', `click-${click}`, (error, answer) => answers.push([error, answer]));
      if (click % 10 === 9) {
        // In the middle of what is on its way.
        const before = answers.length;
        await until(() => answers.length > before, 'an answer');
        proxy.cut();
      }
    }
    await until(() => answers.length === 60, 'every click is acknowledged');
    for (const [error, answer] of answers) {
      same(error, null);
      ok(Number.isInteger(answer.rev));
    }
    await shows(socket, { red: 60, blue: 0 });
    socket.close();
    proxy.close();
  },

  async 'who comes back as another user begins anew'(_, transports) {
    const directory = temporary();
    const file = (name) => join(directory, name);
    for (const name of ['anna', 'bea']) {
      const add = ['user', 'add', name, '--password-stdin', '--file', file('users')];
      same(spawnSync(process.env.LATCHBUS, add, { input: 'right' }).status, 0);
    }
    writeFileSync(file('rules.toml'), 'everyone = ["own"]\n[roles.own]\nsubscribe = ["{user}/#", "clicks/#"]\npublish = ["#"]\n');
    const server = await Server.start({ more: ['--users', file('users'), '--access', file('rules.toml')] });
    const proxy = await Proxy.before(server.port);
    let user = 'anna';
    const socket = open(proxy.url, transports, { auth: (answer) => answer({ user, password: 'right' }) });
    await shows(socket, { red: 0, blue: 0 });
    same(await socket.emitWithAck('subscribe', 'anna/#'), {});
    for (const topic of ['anna/x', 'bea/x']) await socket.emitWithAck('publish', topic, 1, { retain: true });
    const topics = () => socket.events.filter(([name]) => name === 'message').map((event) => event[1]);
    await until(() => topics().length === 1, 'her message');

    const again = async (as) => {
      user = as;
      socket.events.length = 0;
      const { length: connects } = socket.connects;
      const { length: disconnects } = socket.disconnects;
      // Between two polls a cut alone is not noticed.
      proxy.down = true;
      proxy.cut();
      await until(() => socket.disconnects.length > disconnects, 'it is cut');
      proxy.down = false;
      await until(() => socket.connects.length > connects, 'it comes back');
      return socket.connects.at(-1);
    };
    same(await again('anna'), true);
    same(await again('bea'), false);
    await shows(socket, { red: 0, blue: 0 });
    // Hers are not there, and what was retained before comes.
    ok((await socket.emitWithAck('unsubscribe', 'anna/#')).error);
    same(await socket.emitWithAck('subscribe', 'bea/#'), {});
    await until(() => topics().length > 0, 'what bea may read');
    same(topics(), ['bea/x']);
    same(await again('bea'), true);
    same(await again('anna'), false);
    socket.close();
    proxy.close();
  },

  async 'general events'(server, transports) {
    const [writer, reader] = [open(server.url, transports), open(server.url, transports)];
    same(await reader.emitWithAck('subscribe', 'lab/#', { mode: 'every', id: 4 }), {});
    await until(() => reader.events.some(([name]) => name === 'synced'), 'synced');
    const sent = [21.5, 'hello', { c: [1, null, true] }, 'é\u{1f680}', '', null, Buffer.from([0, 1, 255])];
    const revs = [];
    for (const payload of sent) revs.push((await writer.emitWithAck('publish', 'lab/x', payload)).rev);
    const messages = () => reader.events.filter(([name]) => name === 'message');
    await until(() => messages().length === sent.length, 'every message');
    same(messages().map((event) => event[1]), sent.map(() => 'lab/x'));
    same(messages().map((event) => (event[2] instanceof Uint8Array ? Buffer.from(event[2]) : event[2])), sent);
    same(messages().map((event) => event[3].rev), revs);
    ok(messages().every((event) => event[3].event === true && event[3].id === 4));
    same(await reader.emitWithAck('unsubscribe', 'lab/#'), {});
    for (const [event, ...args] of [
      ['publish', 'clicks/main/values', 1], ['publish', 'a/+', 1], ['publish'], ['subscribe', 'a#'], ['unsubscribe', 'x'], ['nonsense'],
    ]) {
      const { error } = await writer.emitWithAck(event, ...args);
      ok(error.code && error.message, event);
    }
    const large = await writer.emitWithAck('publish', 'lab/large', 'x'.repeat((1 << 20) + 1));
    same(large.error.code, 'too_large');
    same(writer.disconnects, []);
    for (const socket of [writer, reader]) socket.close();
  },

  async 'a large snapshot comes whole'(server, transports) {
    const writer = open(server.url, transports);
    const all = Array.from({ length: 300 }, (_, at) => writer.emitWithAck('publish', `many/${at}`, at, { retain: true }));
    await Promise.all(all);
    const reader = open(server.url, transports);
    await reader.emitWithAck('subscribe', 'many/#');
    await until(() => reader.events.some(([name]) => name === 'synced'), 'synced');
    const came = reader.events.filter(([name]) => name === 'message').map((event) => event[2]);
    same(came.sort((a, b) => a - b), all.map((_, at) => at));
    for (const socket of [writer, reader]) socket.close();
  },

  async namespaces(server, transports) {
    const unknown = open(`${server.url}/nowhere`, transports);
    const [error] = await once(unknown, 'connect_error');
    same(error.message, 'Invalid namespace');
    unknown.close();
    const socket = open(server.url, transports);
    await shows(socket, { red: 0, blue: 0 });
    socket.disconnect();
    socket.connect();
    await until(() => socket.connects.length === 2, 'it joins again');
    await shows(socket, { red: 0, blue: 0 });
    socket.close();
  },

  async 'signing in'(_server, transports) {
    const users = join(temporary(), 'users');
    const added = spawnSync(process.env.LATCHBUS, ['user', 'add', 'anna', '--file', users, '--password-stdin'], { input: 'correct horse\n' });
    same(added.status, 0, String(added.stderr));
    const server = await Server.start({ more: ['--users', users] });
    const pair = Buffer.from('anna:correct horse').toString('base64');
    const byHeader = open(server.url, transports, { extraHeaders: { Authorization: `Basic ${pair}` } });
    await shows(byHeader, { red: 0, blue: 0 });
    await until(() => byHeader.io.engine.transport.name === transports.at(-1), transports.at(-1));
    // Who is refused is told why, and tries again.
    const socket = open(server.url, transports);
    for (const [auth, message] of [
      [{}, 'credentials are required'], [{ user: 'anna', password: 'wrong' }, 'bad user name, password or token'],
    ]) {
      socket.auth = auth;
      const refused = once(socket, 'connect_error');
      socket.connect();
      const [error] = await refused;
      same([error.message, error.data], [message, { code: 'unauthorized' }]);
    }
    socket.auth = { user: 'anna', password: 'correct horse' };
    socket.connect();
    await shows(socket, { red: 0, blue: 0 });
    for (const it of [byHeader, socket]) {
      ok(Number.isInteger((await it.emitWithAck('publish', 'lab/x', 1)).rev));
      it.close();
    }
    await server.end();
  },

  async 'going on after cuts'(server, transports) {
    const proxy = await Proxy.before(server.port);
    const [socket, other] = [open(proxy.url, transports), open(server.url, transports)];
    await socket.emitWithAck('subscribe', 'log/#', { mode: 'every' });
    await until(() => socket.events.some(([name]) => name === 'synced'), 'synced');
    await shows(socket, { red: 0, blue: 0 });
    for (let round = 1; round <= 4; round += 1) {
      proxy.down = true;
      proxy.cut();
      await until(() => socket.disconnects.length === round, 'it is cut');
      await other.emitWithAck('redClicked');
      for (const part of 'ab') await other.emitWithAck('publish', 'log/x', `${round}${part}`);
      proxy.down = false;
      await until(() => socket.connects.length === round + 1, 'it is back');
      same(socket.connects.at(-1), true);
      await shows(socket, { red: round, blue: 0 });
    }
    const log = () => socket.events.filter(([name]) => name === 'message').map((event) => event[2]);
    await until(() => log().length >= 8, 'the log');
    same(log(), [1, 2, 3, 4].flatMap((round) => [`${round}a`, `${round}b`]));
    const reds = values(socket).map(({ red }) => red);
    same(reds, [...reds].sort((a, b) => a - b));
    for (const it of [socket, other]) it.close();
    proxy.close();
  },

  async 'going on after kill -9'(_server, transports) {
    const directory = temporary();
    let server = await Server.start({ directory });
    const { port } = server;
    const socket = open(server.url, transports);
    for (let life = 1; life <= 3; life += 1) {
      await until(() => socket.connected, 'it is connected');
      socket.emit('redClicked', `life-${life}`);
      await shows(socket, { red: life, blue: 0 });
      await server.end('SIGKILL');
      await until(() => !socket.connected, 'it is cut');
      server = await Server.start({ directory, port });
      await until(() => socket.connects.length === life + 1, 'it is back');
      same(socket.connects.at(-1), true);
    }
    // After a start the totals are told again, as they are.
    const reds = values(socket).map(({ red }) => red);
    same(reds, [...reds].sort((a, b) => a - b));
    same([...new Set(reds)], [0, 1, 2, 3]);
    socket.close();
    await server.end();
  },

  async 'a server that stops'(_server, transports) {
    const server = await Server.start();
    const socket = open(server.url, transports, { reconnection: false });
    await shows(socket, { red: 0, blue: 0 });
    await server.end();
    await until(() => socket.disconnects.length === 1, 'it is told');
    ok(['transport close', 'transport error'].includes(socket.disconnects[0]), socket.disconnects[0]);
  },

  async 'a reader that stopped gets the newest value first'(server, transports) {
    const proxy = await Proxy.before(server.port);
    const reader = open(proxy.url, transports);
    const writer = open(server.url, ['websocket']);
    await shows(reader, { red: 0, blue: 0 });
    await until(() => reader.io.engine.transport.name === transports.at(-1), transports.at(-1));
    proxy.stop();
    const before = values(reader).length;
    let clicks = 0;
    for (; clicks < 3_000; clicks += 1) writer.emit('redClicked');
    await shows(writer, { red: clicks, blue: 0 });
    proxy.go();
    await shows(reader, { red: clicks, blue: 0 });
    const came = values(reader).length - before;
    ok(came < 1_000, `${came} frames`);
    for (const socket of [reader, writer]) socket.close();
    proxy.close();
  },
};

/** A proxy that can cut connections, let none through while it is down, and stop reading from the server. */
class Proxy {
  static async before(port) {
    const proxy = new Proxy();
    proxy.sockets = new Set();
    proxy.stopped = false;
    proxy.server = createServer((near) => {
      if (proxy.down) {
        near.destroy();
        return;
      }
      const far = tcp(port, '127.0.0.1');
      for (const socket of [near, far]) {
        socket.on('error', () => {});
        socket.on('close', () => { near.destroy(); far.destroy(); proxy.sockets.delete(far); });
      }
      proxy.sockets.add(far);
      far.on('data', (bytes) => near.write(bytes));
      near.on('data', (bytes) => far.write(bytes));
      if (proxy.stopped) far.pause();
    });
    await once(proxy.server.listen(0, '127.0.0.1'), 'listening');
    proxy.url = `http://127.0.0.1:${proxy.server.address().port}`;
    return proxy;
  }

  cut() { for (const socket of this.sockets) socket.destroy(); }

  stop() { this.stopped = true; for (const socket of this.sockets) socket.pause(); }

  go() { this.stopped = false; for (const socket of this.sockets) socket.resume(); }

  close() { this.server.close(); this.cut(); }
}

let [passed, failed] = [0, 0];
for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
  for (const [name, check] of Object.entries(checks)) {
    const label = `${name}, ${transports.join(' then ')}`;
    const begun = Date.now();
    const server = await Server.start();
    try {
      await check(server, transports);
      passed += 1;
      console.log(`ok     ${label} (${Date.now() - begun} ms)`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED ${label}\n${error.stack}`);
    } finally {
      await server.end();
      // What a check that failed has left.
      await Promise.all([...Server.running].map((left) => left.end('SIGKILL')));
      for (const directory of directories.splice(0)) rmSync(directory, { recursive: true });
    }
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
