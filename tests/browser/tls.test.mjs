/** The dashboard over TLS: Chromium with the private authority among those that it trusts, and without. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { openPage, runLatchbus, showsSoon, startServer, useBrowser } from './support.mjs';

const directory = mkdtempSync(path.join(tmpdir(), 'latchbus-tls-'));
after(() => rmSync(directory, { recursive: true, force: true, maxRetries: 3 }));
const file = (name) => path.join(directory, name);

const hasCertutil = spawnSync('certutil', ['-H']).error === undefined;

/** A home whose certificate store, which is NSS's, has the authority. */
async function trusting() {
  await runLatchbus('cert', directory, '127.0.0.1', 'bus.example.com');
  const home = file('home');
  const store = path.join(home, '.pki', 'nssdb');
  mkdirSync(store, { recursive: true });
  if (!hasCertutil) return home;
  const certutil = (...options) => execFileSync('certutil', ['-d', `sql:${store}`, ...options]);
  certutil('-N', '--empty-password');
  certutil('-A', '-t', 'C,,', '-n', 'latchbus', '-i', file('ca.pem'));
  return home;
}

const trustful = useBrowser({ home: trusting });
const stranger = useBrowser();

function start(t) {
  return startServer(t, {
    flags: [
      '--http-tls', '127.0.0.1:0', '--tls-cert', file('server.pem'), '--tls-key', file('server.key'),
      '--allow-hosts', 'bus.example.com',
    ],
  });
}

for (const host of ['127.0.0.1', 'bus.example.com']) {
  test(`the dashboard counts over TLS, as ${host}`, async (t) => {
    if (!hasCertutil) {
      assert.notEqual(process.env.CI, 'true', 'certutil is missing');
      return t.skip('needs certutil');
    }
    const server = await start(t);
    const url = server.secureUrl.replace('127.0.0.1', host);
    const page = await openPage(await trustful.profile(t), url);
    const sockets = [];
    page.on('websocket', (socket) => sockets.push(socket.url()));
    await page.reload();
    await showsSoon(page, { phase: 'live', red: 0 });
    await page.click('#red');
    await showsSoon(page, { red: 1, pending: 0 });
    assert.ok(sockets.length > 0 && sockets.every((socket) => socket.startsWith('wss:')), sockets.join(' '));
    assert.ok(await page.evaluate(() => globalThis.isSecureContext));
    assert.deepEqual(page.complaints, []);
  });
}

test('a browser that does not know the authority shows no page', async (t) => {
  const server = await start(t);
  const page = await (await stranger.profile(t)).newPage();
  await assert.rejects(page.goto(server.secureUrl), /ERR_CERT_AUTHORITY_INVALID/);
});
