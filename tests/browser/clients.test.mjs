/** The page of the clients: who is connected, whose sessions are kept, and the end of either. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mqttClient, openPage, startServer, until, useBrowser } from './support.mjs';
import { fillIn, PASSWORD, showsLive, startWithUsers, user } from './users.mjs';

const browser = useBrowser();
const HOSTILE = '<img src=x onerror="document.title=1">\u202e"\'&amp;?a=b#%2e%2e/..\u2069';
const RULES = `
everyone = ["watcher"]
[roles.watcher]
subscribe = ["clicks/#"]
[roles.operator]
admin = true
[users]
anna = ["operator"]
`;

/** A client may go between the look at the list and the look at its subscriptions. */
const GONE_MEANWHILE = /status of 404 .*\/api\/v1\/clients\/\d+\/subscriptions\?/;
const unexpected = (page) => page.complaints.filter((complaint) => !GONE_MEANWHILE.test(complaint));

const pick = (page, name) => page.locator('.pick', { has: page.getByText(name, { exact: true }) });

async function openClients(t, server, options) {
  const page = await openPage(await browser.profile(t, options), `${server.url}/clients`);
  await showsLive(page);
  return page;
}

async function textSoon(page, selector, expected) {
  let text;
  const fits = async () => (text = await page.locator(selector).textContent()) === expected;
  await until(fits, () => `expected ${expected} in ${selector}, the page shows ${text}`);
}

/** The texts of what is known of the client that was chosen. */
async function traits(page) {
  const pairs = await page.locator('#traits > div').evaluateAll((all) => all.map((pair) => [...pair.children].map((node) => node.textContent)));
  return Object.fromEntries(pairs);
}

async function end(page, button, title, answer = 'yes') {
  await page.locator(button).click();
  assert.equal(await page.locator('#ask-title').textContent(), title);
  await page.locator(`#ask-${answer}`).click();
}

test('clients are listed, chosen, disconnected, and their sessions ended', async (t) => {
  const server = await startServer(t);
  const board = await mqttClient(t, server, { clientId: 'lab/board', clean: false, filters: ['lab/#', 'a/+/b'] });
  const page = await openClients(t, server);
  await textSoon(page, '#clients-tally', '2');
  await textSoon(page, '#sessions-note', 'No session is kept.');
  await pick(page, 'lab/board').click();
  await page.locator('#subscriptions tr').nth(1).waitFor();
  assert.deepEqual(await page.locator('#subscriptions th').allTextContents(), ['lab/#', 'a/+/b']);
  const known = await traits(page);
  assert.deepEqual([known.User, known.Transport, known.Subscriptions, known['In flight']], ['anonymous', 'mqtt', '2', '0']);
  assert.match(known.Address, /^127\.0\.0\.1:\d+$/);
  assert.equal(await page.locator('#standing').textContent(), 'Connected');

  await end(page, '#disconnect', 'Disconnect lab/board?', 'no');
  assert.equal(await page.locator('#outcome').textContent(), '');
  await end(page, '#disconnect', 'Disconnect lab/board?');
  await board.closed;
  await textSoon(page, '#outcome', 'lab/board was disconnected.');
  await textSoon(page, '#standing', 'Away: its session is kept');
  await textSoon(page, '#sessions-tally', '1');
  assert.equal((await traits(page)).Will, 'none');
  assert.equal(await page.locator('#disconnect').isVisible(), false);
  // It is the one that was chosen, when it comes back, too.
  await mqttClient(t, server, { clientId: 'lab/board', clean: false });
  await textSoon(page, '#standing', 'Connected');
  await end(page, '#end', 'End the session of lab/board?');
  await textSoon(page, '#outcome', 'lab/board has no session any more.');
  await textSoon(page, '#standing', 'Not connected any more');
  await textSoon(page, '#clients-tally', '1');
  for (const button of ['#disconnect', '#end']) assert.equal(await page.locator(button).isDisabled(), true);
  assert.deepEqual(unexpected(page), []);
});

test('what a client calls itself is text, wherever it stands, and names no one else', async (t) => {
  const server = await startServer(t);
  const ids = [HOSTILE, '..', '.', 'a b', 'a+b'];
  for (const clientId of ids) await mqttClient(t, server, { clientId, clean: false, filters: [`t/${clientId.replaceAll(/[+#]/g, '')}`] });
  const page = await openClients(t, server);
  await textSoon(page, '#clients-tally', '6');
  const title = await page.title();
  for (const [at, id] of ids.entries()) {
    await page.locator('#search').fill([...id].slice(0, 20).join(''));
    await pick(page, id).click();
    assert.equal(await page.locator('#client-name').textContent(), id);
    await page.locator('#subscriptions th', { hasText: 't/' }).waitFor();
    await end(page, '#end', `End the session of ${id}?`);
    await textSoon(page, '#outcome', `${id} has no session any more.`);
    await page.locator('#search').fill('');
    await textSoon(page, '#clients-tally', String(5 - at));
  }
  assert.equal(await page.locator('main img').count(), 0);
  assert.equal(await page.title(), title);
  assert.deepEqual(unexpected(page), []);
});

test('a client that goes while the question is asked', async (t) => {
  const server = await startServer(t);
  const board = await mqttClient(t, server, { clientId: 'board' });
  const page = await openClients(t, server);
  await pick(page, 'board').click();
  await page.locator('#disconnect').click();
  await board.leave();
  await textSoon(page, '#standing', 'Not connected any more');
  await page.locator('#ask-yes').click();
  await textSoon(page, '#outcome', 'board had gone already.');
  assert.equal(await page.locator('#ask').isVisible(), false);
  assert.deepEqual(unexpected(page), []);
});

test('what is typed, chosen and in focus stays while the list changes, and the keyboard is enough', async (t) => {
  const server = await startServer(t);
  const first = await mqttClient(t, server, { clientId: 'kiosk-1' });
  for (const clientId of ['kiosk-2', 'kiosk-3']) await mqttClient(t, server, { clientId, filters: ['x'] });
  const page = await openClients(t, server);
  await page.locator('#search').fill('kiosk');
  await textSoon(page, '#clients-tally', '3');
  assert.equal(new URL(page.url()).search, '?search=kiosk');
  await page.keyboard.press('Tab');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');
  await textSoon(page, '#client-name', 'kiosk-2');
  const focused = () => page.evaluate(() => document.activeElement?.querySelector('.name')?.textContent);
  assert.equal(await focused(), 'kiosk-2');
  await first.leave();
  await mqttClient(t, server, { clientId: 'kiosk-4' });
  await pick(page, 'kiosk-4').waitFor();
  await textSoon(page, '#clients-tally', '3');
  assert.equal(await focused(), 'kiosk-2');
  assert.equal(await page.locator('#search').inputValue(), 'kiosk');
  assert.equal(await page.locator('[aria-current=true] .name').textContent(), 'kiosk-2');
  // Chosen, and not among those that are searched for.
  await page.locator('#search').fill('kiosk-4');
  await textSoon(page, '#clients-tally', '1');
  assert.equal(await page.locator('#standing').textContent(), 'Connected');
  await page.locator('#search').fill('nobody of this name');
  await textSoon(page, '#clients-note', 'None matches.');
  await page.reload();
  await textSoon(page, '#clients-note', 'None matches.');
  assert.deepEqual(unexpected(page), []);
});

test('of many clients the first are drawn, and all are searched', async (t) => {
  const server = await startServer(t);
  const ids = Array.from({ length: 450 }, (_, i) => `board-${i}`);
  await Promise.all(ids.map((clientId) => mqttClient(t, server, { clientId })));
  const page = await openClients(t, server);
  await textSoon(page, '#clients-tally', '451');
  assert.equal(await page.locator('#clients tr').count(), 200);
  assert.match(await page.locator('#clients-note').textContent(), /^and 251 more/);
  await page.locator('#search').fill('BOARD-449');
  await pick(page, 'board-449').waitFor();
  await textSoon(page, '#clients-tally', '1');
  assert.equal(await page.locator('#clients-note').textContent(), '');
  assert.deepEqual(unexpected(page), []);
});

test('a guest is not offered the page, and sees nothing there; an administrator does', async (t) => {
  const server = await startWithUsers(t, { rules: RULES, flags: ['--anonymous', '--base-path', '/lb'] });
  const profile = await browser.profile(t);
  const page = await openPage(profile, `${server.url}/lb/`);
  await showsLive(page);
  const link = page.getByRole('link', { name: 'Clients' });
  assert.equal(await link.count(), 0);
  await page.goto(`${server.url}/lb/clients`);
  await page.getByText('Only administrators see who is connected.').waitFor();
  assert.equal(await page.locator('main').isVisible(), false);
  await page.getByRole('link', { name: 'Sign in' }).click();
  await fillIn(page, 'anna', PASSWORD);
  await page.waitForURL(`${server.url}/lb/clients`);
  await page.locator('.pick', { hasText: 'anna' }).click();
  await textSoon(page, '#standing', 'Connected');
  assert.equal((await traits(page)).User, 'anna');
  assert.equal(await page.locator('#others').isVisible(), false);
  await page.goto(`${server.url}/lb/topics`);
  assert.equal(await link.getAttribute('href'), 'clients');
  assert.deepEqual(unexpected(page), []);
});

test('who is signed out while the page is open is told', async (t) => {
  const server = await startWithUsers(t);
  const page = await openPage(await browser.profile(t), `${server.url}/clients`);
  await fillIn(page, 'anna', PASSWORD);
  await showsLive(page);
  await textSoon(page, '#clients-tally', '1');
  await user(server.users, ['remove', 'anna']);
  await page.getByText('You are signed out. Sign in').waitFor();
  assert.equal(await page.locator('#clients-tally').textContent(), '1');
});
