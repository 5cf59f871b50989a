// mqtt.js, 3.1.1 and 5, over TCP and WebSocket, with TLS and without, against latchbus.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { deepStrictEqual as same, ok, rejects } from 'node:assert';
import mqtt from 'mqtt';
import { DEADLINE_MS } from '../deadline.mjs';

const RETAINED = 10_000;
// As many as are tolerated at once.
const BURST = 4_096;
const ROUNDS = 50;

const certificates = mkdtempSync(path.join(tmpdir(), 'latchbus-mqttjs-'));
let server;

async function strangers(url) {
  const client = mqtt.connect(url, { reconnectPeriod: 0 });
  const [error] = await once(client, 'error');
  ok(/self-signed|unable to (get|verify)/.test(error.message), error.message);
  await client.endAsync(true);
}

execFileSync(process.env.LATCHBUS, ['cert', certificates, '127.0.0.1'], { stdio: 'ignore' });

async function start(...more) {
  const file = (name) => path.join(certificates, name);
  const args = [
    '--ephemeral', '--http', '127.0.0.1:0', '--mqtt', '127.0.0.1:0', '--http-tls', '127.0.0.1:0', '--mqtt-tls', '127.0.0.1:0',
    '--tls-cert', file('server.pem'), '--tls-key', file('server.key'), ...more,
  ];
  const process_ = spawn(process.env.LATCHBUS, args, { stdio: ['ignore', 'pipe', 'ignore'] });
  const [line] = await once(createInterface(process_.stdout), 'line');
  const word = (name) => line.match(new RegExp(` ${name}=(\\S+)`))[1];
  return {
    process: process_,
    ca: readFileSync(file('ca.pem')),
    mqtt: `mqtt://${word('mqtt')}`,
    ws: `ws://${word('http')}/mqtt`,
    mqtts: `mqtts://${word('mqtt-tls')}`,
    wss: `wss://${word('http-tls')}/mqtt`,
  };
}

async function until(condition, what) {
  const end = Date.now() + DEADLINE_MS;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

class Client {
  static async open(url, version, clientId, { clean = true, ...options } = {}) {
    const client = new Client();
    client.received = [];
    client.closed = 0;
    const properties = version === 5 && !clean ? { sessionExpiryInterval: 300 } : undefined;
    client.mqtt = mqtt.connect(url, {
      clientId: clientId || undefined, clean, protocolVersion: version, reconnectPeriod: 0, properties, ca: server?.ca, ...options,
    });
    client.mqtt.on('message', (topic, payload, packet) => {
      client.received.push({ topic, text: payload.toString(), retain: packet.retain, qos: packet.qos, packet });
    });
    client.mqtt.on('close', () => { client.closed += 1; });
    [client.connack] = await once(client.mqtt, 'connect');
    return client;
  }

  async expect(...texts) {
    await until(() => this.received.length >= texts.length, `${texts} but ${this.received.map((m) => m.text)}`);
    same(this.received.map((message) => message.text), texts);
    return this.received.splice(0);
  }

  close() { return this.mqtt.endAsync(); }
}

const checks = {
  async 'each quality'(url, version) {
    const client = await Client.open(url, version, 'quality');
    for (const qos of [0, 1, 2]) {
      const [granted] = await client.mqtt.subscribeAsync('quality', { qos });
      same(granted.qos, qos);
      for (const published of [0, 1, 2]) await client.mqtt.publishAsync('quality', `${published}`, { qos: published });
      const received = await client.expect('0', '1', '2');
      same(received.map((message) => message.qos), [0, 1, 2].map((published) => Math.min(qos, published)));
    }
    await client.close();
  },

  async retained(url, version) {
    const topic = `retained/${version}/${url.split(':')[0]}/é`;
    const client = await Client.open(url, version, 'retained');
    await client.mqtt.publishAsync(topic, 'first', { qos: 1, retain: true });
    await client.mqtt.publishAsync(topic, 'second', { qos: 1, retain: true });
    await client.mqtt.subscribeAsync(topic, { qos: 1 });
    ok((await client.expect('second'))[0].retain);
    await client.mqtt.publishAsync(topic, 'third', { qos: 1, retain: true });
    ok(!(await client.expect('third'))[0].retain);
    await client.mqtt.publishAsync(topic, '', { qos: 1, retain: true });
    await client.expect('');
    await client.mqtt.subscribeAsync(topic, { qos: 1 });
    await client.mqtt.publishAsync(topic, 'event', { qos: 1 });
    await client.expect('event');
    await client.close();
  },

  async will(url, version) {
    const watcher = await Client.open(url, version, 'watcher');
    await watcher.mqtt.subscribeAsync('will/#', { qos: 1 });
    const polite = { will: { topic: 'will/polite', payload: 'gone', qos: 1, retain: false } };
    await (await Client.open(url, version, 'polite', polite)).close();
    const cut = { will: { topic: 'will/cut', payload: 'gone', qos: 1, retain: false } };
    (await Client.open(url, version, 'cut', cut)).mqtt.stream.destroy();
    same((await watcher.expect('gone'))[0].topic, 'will/cut');
    await watcher.close();
  },

  async 'persistent session, QoS 2'(url, version) {
    const name = `persistent-${version}-${url.split(':')[0]}`;
    const first = await Client.open(url, version, name, { clean: false });
    ok(!first.connack.sessionPresent);
    await first.mqtt.subscribeAsync(name, { qos: 2 });
    await first.close();
    const publisher = await Client.open(url, version, 'publisher');
    const numbers = Array.from({ length: 200 }, (_, number) => `${number}`);
    await Promise.all(numbers.map((number) => publisher.mqtt.publishAsync(name, number, { qos: 2 })));
    await publisher.close();
    const second = await Client.open(url, version, name, { clean: false });
    ok(second.connack.sessionPresent);
    await second.expect(...numbers);
    await second.close();
  },

  async 'more at once than the receive maximum'(url, version) {
    const name = `burst-${version}-${url.split(':')[0]}`;
    const reader = await Client.open(url, version, `${name}-reader`);
    await reader.mqtt.subscribeAsync(name, { qos: 2 });
    const writer = await Client.open(url, version, name);
    const numbers = Array.from({ length: BURST }, (_, number) => `${number}`);
    await Promise.all(numbers.map((number) => writer.mqtt.publishAsync(name, number, { qos: 2 })));
    same(writer.closed, 0);
    await reader.expect(...numbers);
    await writer.close();
    await reader.close();
  },

  async takeover(url, version) {
    const first = await Client.open(url, version, 'twin');
    const second = await Client.open(url, version, 'twin');
    await until(() => first.closed > 0, 'the end of the first');
    await second.mqtt.subscribeAsync('twin');
    await second.mqtt.publishAsync('twin', 'x');
    await second.expect('x');
    await second.close();
  },

  async 'large messages'(url, version) {
    const client = await Client.open(url, version, 'large');
    await client.mqtt.subscribeAsync('large', { qos: 1 });
    const large = 'é'.repeat(32_000);
    await client.mqtt.publishAsync('large', large, { qos: 1 });
    await client.expect(large);
    await client.close();
  },

  async [`${RETAINED} retained topics`](url, version) {
    // Over TCP, mosquitto_sub does it as often; TLS changes nothing about what is sent.
    const rounds = url.startsWith('ws:') ? ROUNDS : 1;
    for (const qos of Array.from({ length: 3 * rounds }, (_, round) => round % 3)) {
      const client = await Client.open(url, version, '');
      await client.mqtt.subscribeAsync('many/#', { qos });
      await until(() => client.received.length >= RETAINED, 'the snapshot');
      same(new Set(client.received.map(({ topic }) => topic)).size, RETAINED);
      same(client.received.length, RETAINED);
      await client.close();
    }
  },
};

const checks5 = {
  async properties(url) {
    const client = await Client.open(url, 5, 'properties');
    await client.mqtt.subscribeAsync('said', { qos: 1, properties: { subscriptionIdentifier: 9 } });
    const said = {
      payloadFormatIndicator: true, contentType: 'text/plain', responseTopic: 'answers',
      correlationData: Buffer.from([0, 255]), userProperties: { a: ['1', '2'] },
    };
    await client.mqtt.publishAsync('said', 'x', { qos: 1, properties: { ...said, messageExpiryInterval: 60 } });
    const { subscriptionIdentifier, messageExpiryInterval, ...rest } = (await client.expect('x'))[0].packet.properties;
    same({ ...rest, userProperties: { ...rest.userProperties } }, said);
    same(subscriptionIdentifier, 9);
    ok(messageExpiryInterval > 50 && messageExpiryInterval <= 60);
    await client.close();
  },

  async 'topic aliases both ways'(url) {
    const options = { autoAssignTopicAlias: true, properties: { topicAliasMaximum: 4 } };
    const client = await Client.open(url, 5, 'aliases', options);
    await client.mqtt.subscribeAsync('aliased/#', { qos: 1 });
    for (const number of [1, 2, 3]) await client.mqtt.publishAsync('aliased/topic', `${number}`, { qos: 0 });
    const received = await client.expect('1', '2', '3');
    ok(received.every(({ topic }) => topic === 'aliased/topic'));
    await client.close();
  },

  async 'receive maximum and maximum packet size'(url) {
    const options = { properties: { receiveMaximum: 2, maximumPacketSize: 100 } };
    const client = await Client.open(url, 5, 'small', options);
    await client.mqtt.subscribeAsync('small', { qos: 2 });
    const publisher = await Client.open(url, 5, 'publisher');
    await publisher.mqtt.publishAsync('small', 'x'.repeat(200), { qos: 1 });
    for (let number = 0; number < 20; number += 1) {
      await publisher.mqtt.publishAsync('small', `${number}`, { qos: 2 });
    }
    await client.expect(...Array.from({ length: 20 }, (_, number) => `${number}`));
    await client.close();
    await publisher.close();
  },

  async 'shared subscriptions'(url) {
    const members = await Promise.all(['a', 'b'].map((name) => Client.open(url, 5, name)));
    for (const member of members) await member.mqtt.subscribeAsync('$share/group/jobs', { qos: 1 });
    const publisher = await Client.open(url, 5, 'publisher');
    for (let number = 0; number < 10; number += 1) {
      await publisher.mqtt.publishAsync('jobs', `${number}`, { qos: 1 });
    }
    await until(() => members[0].received.length + members[1].received.length >= 10, 'all jobs');
    const jobs = members.flatMap((member) => member.received.map(({ text }) => text));
    same(jobs.sort(), Array.from({ length: 10 }, (_, number) => `${number}`));
    ok(members.every((member) => member.received.length > 0), 'one has taken all');
    await Promise.all([...members, publisher].map((client) => client.close()));
  },
};

const settings = (folder) => `
users = "${folder}/users"
[access]
signed_in = ["member"]
[access.roles.member]
publish = ["open/#"]
subscribe = ["open/#"]
`;

// Users and rules, each with a server of its own: an address may fail only a few times.
async function guarded(check) {
  const folder = mkdtempSync(path.join(tmpdir(), 'latchbus-users-'));
  const user = (words, input) => {
    execFileSync(process.env.LATCHBUS, ['user', ...words, '--file', path.join(folder, 'users')], { input });
  };
  try {
    user(['add', 'anna', '--password-stdin'], 'secret\n');
    writeFileSync(path.join(folder, 'latchbus.toml'), settings(folder));
    const guard = await start('--config', path.join(folder, 'latchbus.toml'));
    try {
      await check(guard, () => {
        user(['remove', 'anna']);
        guard.process.kill('SIGHUP');
      });
    } finally {
      guard.process.kill();
      await once(guard.process, 'exit');
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const ANNA = { username: 'anna', password: 'secret' };

const users = {
  async 'who comes in'(name, version) {
    await guarded(async (guard) => {
      const client = await Client.open(guard[name], version, 'right', ANNA);
      await client.close();
      const codes = version === 5 ? [0x86, 0x86, 0x87] : [4, 4, 5];
      for (const [n, credentials] of [{ ...ANNA, password: 'wrong' }, { ...ANNA, username: 'zoe' }, {}].entries()) {
        await rejects(Client.open(guard[name], version, 'wrong', credentials), { code: codes[n] });
      }
    });
  },

  async 'who is removed has to go'(name, version) {
    await guarded(async (guard, remove) => {
      const client = await Client.open(guard[name], version, 'anna', ANNA);
      let reason;
      client.mqtt.on('disconnect', (packet) => { reason = packet.reasonCode; });
      remove();
      await until(() => client.closed > 0, 'the end of the connection');
      if (version === 5) same(reason, 0x87);
      await rejects(Client.open(guard[name], version, 'anna', ANNA), { code: version === 5 ? 0x86 : 4 });
    });
  },

  async 'what the rules refuse'(name, version) {
    await guarded(async (guard) => {
      const client = await Client.open(guard[name], version, 'anna', ANNA);
      const all = await client.mqtt.subscribeAsync('#', { qos: 1 });
      same(all[0].qos, 1);
      await rejects(client.mqtt.subscribeAsync('closed/#', { qos: 1 }));
      const publish = client.mqtt.publishAsync('closed/a', 'x', { qos: 1 });
      if (version === 5) await rejects(publish, { code: 0x87 });
      else await publish;
      await client.mqtt.publishAsync('open/a', 'y', { qos: 1 });
      await client.expect('y');
      await client.close();
    });
  },
};

let [passed, failed] = [0, 0];
async function run(name, check, ...args) {
  const begun = Date.now();
  try {
    await check(...args);
    passed += 1;
    console.log(`ok     ${name} (${(Date.now() - begun) / 1000} s)`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED ${name}\n${error.stack}`);
  }
}

server = await start();
try {
  const filler = await Client.open(server.mqtt, 4, 'filler');
  const topics = Array.from({ length: RETAINED }, (_, number) => number);
  for (const n of topics) filler.mqtt.publish(`many/${n}`, `${n}`, { qos: 0, retain: true });
  await filler.mqtt.publishAsync('filled', 'x', { qos: 1 });
  await filler.close();
  const transports = { TCP: server.mqtt, WebSocket: server.ws, TLS: server.mqtts, 'WebSocket with TLS': server.wss };
  await run('a server that is not trusted, TLS', strangers, server.mqtts);
  await run('a server that is not trusted, WebSocket with TLS', strangers, server.wss);
  for (const [transport, url] of Object.entries(transports)) {
    for (const version of [4, 5]) {
      for (const [name, check] of Object.entries(checks)) {
        await run(`${name}, ${version === 4 ? '3.1.1' : '5'}, ${transport}`, check, url, version);
      }
    }
    for (const [name, check] of Object.entries(checks5)) await run(`${name}, 5, ${transport}`, check, url);
  }
  for (const transport of ['mqtt', 'ws', 'wss']) {
    for (const version of [4, 5]) {
      for (const [name, check] of Object.entries(users)) {
        await run(`${name}, ${version === 4 ? '3.1.1' : '5'}, ${transport}`, check, transport, version);
      }
    }
  }
} finally {
  server.process.kill();
  await once(server.process, 'exit');
  rmSync(certificates, { recursive: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
