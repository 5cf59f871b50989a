/** Every configuration of a proxy in docs/deploy.md, as it stands there, run by the real program; and what refusals look like. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { test } from 'node:test';
import {
  mosquittoPub,
  openPage,
  showsSoon,
  startServer,
  temporaryDirectory,
  until,
  useBrowser,
} from './support.mjs';

const { profile } = useBrowser();
const NAME = 'bus.example.com';
const deploy = await readFile(new URL('../../docs/deploy.md', import.meta.url), 'utf8');
const blocks = [...deploy.matchAll(/<!-- run: (\w+)(.*?) -->\n```\w+\n(.*?)```/gs)].map(([, program, words, config]) => {
  const below = /below (\S+)/.exec(words)?.[1] ?? '/';
  const flags = words.replace(/below \S+/, '').trim();
  return { program, below, flags: flags ? flags.split(' ') : [], config };
});

/** A port that was free a moment ago. */
async function freePort() {
  const socket = net.createServer();
  await new Promise((resolve) => socket.listen(0, '127.0.0.1', resolve));
  const { port } = socket.address();
  await new Promise((resolve) => socket.close(resolve));
  return port;
}

/** How the extracts of the document become something that runs here: other ports, a certificate, no daemon. */
const PROGRAMS = {
  nginx: async (config, directory, { port }) => {
    const [certificate, key] = [`${directory}/bus.pem`, `${directory}/bus.key`];
    const subject = ['-subj', `/CN=${NAME}`, '-days', '2', '-nodes', '-x509', '-newkey', 'ec'];
    const curve = ['-pkeyopt', 'ec_paramgen_curve:prime256v1', '-keyout', key, '-out', certificate];
    if (config.includes('ssl_certificate')) execFileSync('openssl', ['req', ...subject, ...curve], { stdio: 'ignore' });
    const server = config
      .replaceAll(/listen (80|443)/g, `listen 127.0.0.1:${port}`)
      .replaceAll('/etc/ssl/bus.pem', certificate)
      .replaceAll('/etc/ssl/bus.key', key);
    const folders = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
    const temporary = folders.map((name) => `${name}_temp_path ${directory}/${name};`).join('\n');
    const whole =
      `daemon off; master_process off; pid ${directory}/pid; error_log stderr; events {}\n` +
      `http { access_log off;\n${temporary}\n${server} }\n`;
    return { whole, arguments: (file) => ['-p', directory, '-c', file] };
  },
  haproxy: async (config, directory, { port, mqttPort }) => ({
    whole: `global\n    stats socket ${directory}/socket\n${config}`
      .replace('bind :80', `bind 127.0.0.1:${port}`)
      .replace('bind :1883', `bind 127.0.0.1:${mqttPort}`),
    arguments: (file) => ['-db', '-f', file],
  }),
  caddy: async (config, _, { port }) => ({
    whole:
      '{\n admin off\n auto_https off\n}\n' +
      config.replace(`${NAME} {`, `http://${NAME}:${port} {\n bind 127.0.0.1`),
    arguments: (file) => ['run', '--adapter', 'caddyfile', '--config', file],
  }),
};

function isThere(program) {
  try {
    execFileSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** A request by its host and without a browser: the status, 0 where the connection ends without an answer. */
function ask(url, headers = {}) {
  const { request } = url.startsWith('https') ? https : http;
  const { port, pathname, host } = new URL(url);
  const options = { host: '127.0.0.1', port, path: pathname, rejectUnauthorized: false, servername: NAME };
  return new Promise((resolve) => {
    const asked = request({ ...options, headers: { host, ...headers } });
    const answered = (response) => {
      response.resume?.();
      asked.destroy();
      resolve(response.statusCode);
    };
    asked.on('response', answered);
    asked.on('upgrade', answered);
    asked.on('error', () => resolve(0));
    asked.end();
  });
}

const UPGRADE = {
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==',
};

/** A file of haproxy's statistics: is the server up, by a check of its own? */
function haproxyChecks(directory) {
  return new Promise((resolve) => {
    let text = '';
    const socket = net.connect(`${directory}/socket`, () => socket.write('show stat\n'));
    socket.on('data', (data) => (text += data));
    socket.on('error', () => resolve({}));
    socket.on('close', () => {
      const [names, ...lines] = text.split('\n').map((line) => line.replace(/^# /, '').split(','));
      const rows = lines.map((line) => Object.fromEntries(names.map((name, i) => [name, line[i]])));
      resolve(rows.find((row) => row.pxname === 'latchbus' && row.svname === 'one') ?? {});
    });
  });
}

async function startProxy(t, server, { program, config, below }) {
  const directory = await temporaryDirectory(t);
  const ports = { port: await freePort(), mqttPort: await freePort() };
  const made = await PROGRAMS[program](config, directory, ports);
  const whole = made.whole.replaceAll('127.0.0.1:3000', server.http).replaceAll('127.0.0.1:1883', server.mqtt);
  const file = `${directory}/config`;
  await writeFile(file, whole);
  const environment = { ...process.env, HOME: directory, XDG_CONFIG_HOME: directory, XDG_DATA_HOME: directory };
  const child = spawn(program, made.arguments(file), { stdio: ['ignore', 'pipe', 'pipe'], env: environment });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  let log = '';
  for (const out of [child.stdout, child.stderr]) out.on('data', (chunk) => (log = (log + chunk).slice(-8_000)));
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  const name = config.includes(NAME) ? NAME : '127.0.0.1';
  const url = `${config.includes('ssl_certificate') ? 'https' : 'http'}://${name}:${ports.port}${below}`;
  const complaint = () => `no health through ${program}:\n${log}\n${whole}`;
  const failed = ended.then(() => assert.fail(complaint()));
  await Promise.race([until(async () => (await ask(`${url}healthz`)) === 200, complaint), failed]);
  failed.catch(() => {});
  return { url, directory, mqttPort: ports.mqttPort };
}

for (const [n, block] of blocks.entries()) {
  const { program, flags, below } = block;
  test(`docs/deploy.md, ${n + 1}: ${[program, ...flags].join(' ')} at ${below}`, async (t) => {
    if (!isThere(program)) {
      assert.notEqual(process.env.CI, 'true', `${program} is missing`);
      return t.skip(`needs ${program}`);
    }
    const server = await startServer(t, { flags });
    const proxy = await startProxy(t, server, block);
    const context = await profile(t, { ignoreHTTPSErrors: true });

    const page = await openPage(context, proxy.url);
    await showsSoon(page, { phase: 'live', red: 0, pending: 0 });
    await page.click('#red');
    await showsSoon(page, { red: 1, pending: 0 });
    assert.ok(await page.locator('#stopped').isHidden());
    await page.click('nav a >> text=Topics');
    await page.waitForSelector('body[data-phase=live]');
    await page.fill('#filter', 'clicks/#');
    await page.waitForURL(`${proxy.url}topics?filter=clicks%2F%23`);
    await page.click('nav a >> text=Score');
    await showsSoon(page, { phase: 'live', red: 1 });
    assert.deepEqual(page.complaints, []);

    // A foreign page, and one that was delivered by a name that points here.
    const ws = `${proxy.url}ws`;
    assert.equal(await ask(ws, { ...UPGRADE, origin: 'http://evil.example' }), 403);
    for (const scheme of ['http', 'https']) {
      const rebound = { host: 'attacker.example', origin: `${scheme}://attacker.example` };
      assert.notEqual(await ask(ws, { ...UPGRADE, ...rebound }), 101, scheme);
    }

    if (program === 'haproxy') {
      const isUp = async () => (await haproxyChecks(proxy.directory)).check_status === 'L7OK';
      await until(isUp, () => 'haproxy has not found the server healthy');
      assert.equal((await haproxyChecks(proxy.directory)).status, 'UP');
    }
    if (block.config.includes('mqtt')) {
      await mosquittoPub({ mqtt: `127.0.0.1:${proxy.mqttPort}` }, 'clicks/main/kiosk-1/press', '-m', 'blue 2');
      await showsSoon(page, { blue: 2 });
    }
  });
}

test('there are configurations of all programs', () => {
  for (const program of Object.keys(PROGRAMS)) assert.ok(blocks.some((block) => block.program === program), program);
});

test('a host that is not listed: the page says which flag allows it', async (t) => {
  const server = await startServer(t);
  const page = await openPage(await profile(t), server.url.replace('127.0.0.1', 'lab.example.com'));
  const host = server.http.replace('127.0.0.1', 'lab.example.com');
  assert.ok((await page.textContent('body')).includes(`--allow-hosts ${host}`));
});

test('without its modules the page says in HTML what is wrong', async (t) => {
  const server = await startServer(t);
  for (const path of ['', '/topics']) {
    const context = await profile(t);
    const page = await context.newPage();
    await page.route('**/dom.js', (route) => route.fulfill({ status: 403 }));
    await page.goto(server.url + path);
    await page.waitForSelector('#stopped', { state: 'visible' });
    assert.match(await page.textContent('#stopped'), /--allow-hosts/);
  }
});

test('a WebSocket that a proxy does not pass on, and one that is refused: the page says so', async (t) => {
  const server = await startServer(t);
  const context = await profile(t);
  const page = await context.newPage();
  await page.routeWebSocket('**/ws*', (ws) => ws.close());
  await page.goto(server.url);
  await page.waitForSelector('#stopped', { state: 'visible' });
  assert.match(await page.textContent('#stopped'), /Upgrade/);
  await page.route('**/api/v1/ticket', (route) =>
    route.fulfill({ status: 403, json: { error: { code: 'not_allowed', message: 'set --allow-origins' } } }),
  );
  await page.reload();
  await page.waitForSelector('#stopped >> text=--allow-origins', { state: 'visible' });
});

/** A page of another server on this machine. A page that no server has delivered may not reach this machine at all. */
async function foreignPage(t, context, name, html) {
  const server = http.createServer((_, response) => response.setHeader('content-type', 'text/html').end(html));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const page = await context.newPage();
  await page.goto(`http://${name}:${server.address().port}/`);
  return page;
}

test('what a hostile page can make a browser do: nothing is written and nothing read', async (t) => {
  const server = await startServer(t);
  const topic = `${server.url}/api/v1/topics/lab/a`;
  const context = await profile(t);
  for (const name of ['evil.example.com', 'localhost', '127.0.0.1']) {
    const page = await foreignPage(t, context, name, '<title>hostile</title>');
    const seen = await page.evaluate(
      async ({ topic, hub }) => {
        const outcome = (promise) => promise.then((answer) => answer.type + answer.status).catch(() => 'failed');
        const opened = await new Promise((resolve) => {
          const socket = new WebSocket(hub.replace('http', 'ws') + '/ws', 'latchbus.v1.json');
          socket.onopen = () => resolve('open');
          socket.onerror = () => resolve('refused');
        });
        return {
          opened,
          read: await outcome(fetch(topic)),
          written: await outcome(fetch(topic, { method: 'POST', body: '1', mode: 'no-cors' })),
          put: await outcome(fetch(topic, { method: 'PUT', body: '1' })),
          ticket: await outcome(fetch(`${hub}/api/v1/ticket`, { method: 'POST' })),
        };
      },
      { topic, hub: server.url },
    );
    assert.deepEqual(seen, { opened: 'refused', read: 'failed', written: 'opaque0', put: 'failed', ticket: 'failed' }, name);
  }
  assert.equal(await ask(topic), 404);
  const metrics = await (await fetch(`${server.url}/metrics`)).text();
  assert.match(metrics, /^latchbus_messages_received_total 0$/m);
});

test('the dashboard is framed by those who may', async (t) => {
  for (const [flags, isShown] of [
    [['--allow-frames', 'http://grafana.example.com:*'], true],
    [[], false],
  ]) {
    const server = await startServer(t, { flags });
    const html = `<iframe src="${server.url}/" width="900" height="700"></iframe>`;
    const page = await foreignPage(t, await profile(t), 'grafana.example.com', html);
    const frame = page.frames().find((each) => each !== page.mainFrame());
    if (isShown) {
      await frame.waitForSelector('body[data-phase=live]');
      await frame.click('#red');
      await frame.waitForSelector('#red-count >> text=1');
    } else {
      await page.waitForLoadState('load');
      assert.equal(await frame.locator('#red').count(), 0);
    }
  }
});
