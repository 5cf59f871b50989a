/** The scoreboard with a server that is there: clicks, agreement, MQTT, keyboard. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEADLINE_MS } from '../deadline.mjs';
import {
  mosquittoPub,
  mosquittoSub,
  openPage,
  showsSoon,
  shown,
  startServer,
  until,
  useBrowser,
} from './support.mjs';

const browser = useBrowser();

/** The incarnations that a browser profile has stored for a room, e.g. `["1-0a1b2c3d"]`. */
function incarnations(page, room = 'main') {
  return page.evaluate((prefix) => {
    return Object.keys(localStorage)
      .filter((key) => key.startsWith(prefix))
      .map((key) => key.slice(prefix.length))
      .sort();
  }, `latchbus/clicks/${room}/`);
}

test('a click counts at once and is confirmed', async (t) => {
  const server = await startServer(t);
  const page = await openPage(await browser.profile(t), server.url);
  await showsSoon(page, { phase: 'live', red: 0, blue: 0, pending: 0 });
  // The next frame after the click has the new count, whatever the network does.
  const next = await page.evaluate(async () => {
    document.getElementById('red').click();
    await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    return document.getElementById('red-count').textContent;
  });
  assert.equal(next, '1');
  await showsSoon(page, { phase: 'live', red: 1, blue: 0, pending: 0 });
  assert.equal(await page.locator('#red-share').textContent(), '100.0\u202f%');
  assert.deepEqual(page.complaints, []);
});

test('many quick clicks: the number only ever rises, and ends exact', async (t) => {
  const server = await startServer(t);
  const page = await openPage(await browser.profile(t), server.url);
  await showsSoon(page, { phase: 'live' });
  const seen = await page.evaluate(async () => {
    const count = document.getElementById('blue-count');
    const seen = [];
    let made = 0;
    const note = () => seen.push([made, Number(count.textContent)]);
    new MutationObserver(note).observe(count, { childList: true, characterData: true, subtree: true });
    for (; made < 200;) {
      made++;
      document.getElementById('blue').click();
      if (made % 3 === 0) await new Promise(requestAnimationFrame);
    }
    for (let frame = 0; frame < 60; frame++) await new Promise(requestAnimationFrame);
    return seen;
  });
  await showsSoon(page, { blue: 200, red: 0, pending: 0 });
  // A click that was confirmed is neither shown twice for a moment nor missing for a moment.
  let before = 0;
  for (const [made, value] of seen) {
    assert.ok(value >= before && value <= made, `${value} shown after ${before}, with ${made} clicks made`);
    before = value;
  }
  assert.equal(before, 200);
  assert.deepEqual(page.complaints, []);
});

for (const hours of [-1, 1]) {
  test(`ages are right at once where this clock is ${hours} h off`, async (t) => {
    const before = await startServer(t);
    await mosquittoPub(before, 'clicks/main/kiosk-1/status', '-r', '-m', 'online');
    const backup = await (await fetch(`${before.url}/api/v1/export`)).text();
    const server = await startServer(t);
    const body = backup.replace(/(kiosk-1\/status".*"at":)(\d+)/, (_, start, at) => start + (at - 30 * 60_000));
    assert.ok((await fetch(`${server.url}/api/v1/import`, { method: 'POST', body })).ok);
    const profile = await browser.profile(t);
    await profile.addInitScript((offset_ms) => {
      const now = Date.now.bind(Date);
      Date.now = () => now() + offset_ms;
    }, hours * 3_600_000);
    const page = await openPage(profile, server.url);
    await showsSoon(page, { phase: 'live' });
    // Nothing is published meanwhile: the welcome alone says what time it is.
    assert.match(await page.locator('tr[data-device="kiosk-1"] .age').textContent(), /^3\d min$/);
    await page.goto(`${server.url}/topics?filter=clicks/%23`);
    const row = page.locator('.row[data-path="clicks/main/kiosk-1/status"]');
    await row.click();
    assert.match(await row.locator('.age').textContent(), /^3\d min$/);
    assert.match(await page.locator('#changed').textContent(), /^3\d min · /);
    assert.deepEqual(page.complaints, []);
  });
}

test('a late page shows the score at once, and two pages agree', async (t) => {
  const server = await startServer(t);
  const first = await openPage(await browser.profile(t), server.url);
  await first.locator('#red').click();
  await first.locator('#red').click();
  await first.locator('#blue').click();
  await showsSoon(first, { red: 2, blue: 1, pending: 0 });

  const second = await openPage(await browser.profile(t), server.url);
  await showsSoon(second, { phase: 'live', red: 2, blue: 1, pending: 0 });
  await Promise.all([first.locator('#blue').click(), second.locator('#blue').click()]);
  for (const page of [first, second]) {
    await showsSoon(page, { red: 2, blue: 3, pending: 0 });
    // Two browsers, two devices.
    await until(
      async () => (await page.locator('#devices tr').count()) === 2,
      () => 'two devices in the table',
    );
    assert.deepEqual(page.complaints, []);
  }
});

test('two tabs of one browser count apart, as one device', async (t) => {
  const server = await startServer(t);
  const profile = await browser.profile(t);
  const tabs = [await openPage(profile, server.url), await openPage(profile, server.url)];
  for (const color of ['red', 'blue']) await Promise.all(tabs.map((tab) => tab.locator(`#${color}`).click()));
  for (const tab of tabs) {
    await showsSoon(tab, { red: 2, blue: 2, pending: 0 });
    await until(async () => (await tab.locator('#devices tr').count()) === 1, () => 'both tabs as one device');
  }
  assert.equal((await incarnations(tabs[0])).length, 2);
});

test("rooms are apart, and a name that can't be a room is explained", async (t) => {
  const server = await startServer(t);
  const profile = await browser.profile(t);
  const lobby = await openPage(profile, `${server.url}/?room=lobby`);
  const main = await openPage(profile, server.url);
  await lobby.locator('#red').click();
  await showsSoon(lobby, { phase: 'live', red: 1, pending: 0 });
  await showsSoon(main, { phase: 'live', red: 0 });
  assert.equal(await lobby.locator('#room').textContent(), 'lobby');

  const wrong = await openPage(profile, `${server.url}/?room=a%2Fb`);
  await wrong.locator('#notice').waitFor({ state: 'visible' });
  assert.match(await wrong.locator('#notice').textContent(), /“a\/b” can't be the name of a room/);
  assert.equal(await wrong.locator('#red').isVisible(), false);
  assert.deepEqual(wrong.complaints, []);
});

test('a click reaches mosquitto_sub, a mosquitto_pub press and presence reach the page', async (t) => {
  const server = await startServer(t);
  const observer = mosquittoSub(t, server, 'clicks/#');
  const page = await openPage(await browser.profile(t), server.url);
  await page.locator('#blue').click();
  await observer.line('clicks/main/values {"red":0,"blue":1}');

  await mosquittoPub(server, 'clicks/main/kiosk-1/press', '-m', 'red');
  await observer.line('clicks/main/values {"red":1,"blue":1}');
  await showsSoon(page, { red: 1, blue: 1, pending: 0 });

  await mosquittoPub(server, 'clicks/main/kiosk-1/status', '-r', '-m', 'online');
  const row = page.locator('#devices tr[data-device="kiosk-1"]');
  await row.locator('td', { hasText: 'online' }).waitFor();
  await mosquittoPub(server, 'clicks/main/kiosk-1/status', '-r', '-m', 'offline');
  await row.locator('td', { hasText: 'offline' }).waitFor();
  const [presence, red, blue, changed] = await row.locator('td').allTextContents();
  assert.deepEqual([presence, red, blue], ['offline', '1', '0']);
  assert.match(changed, /^(now|\d+ s)$/);

  await mosquittoPub(server, 'clicks/main/board-2/count/1-00c0ffee', '-r', '-m', '{"red":40,"blue":2}');
  await showsSoon(page, { red: 41, blue: 3, pending: 0 });
  assert.deepEqual(page.complaints, []);
});

test('malformed reports are shown beside the device that they name, with the reason', async (t) => {
  const server = await startServer(t);
  const page = await openPage(await browser.profile(t), server.url);
  await showsSoon(page, { phase: 'live' });
  await mosquittoPub(server, 'clicks/main/kiosk-1/press', '-m', 'red');
  await showsSoon(page, { red: 1 });
  const row = page.locator('#devices tr[data-device="kiosk-1"]');
  await row.waitFor();
  assert.equal(await row.locator('summary').count(), 0);

  // By HTTP: an MQTT 3.1.1 client whose publish is malformed loses its connection.
  const post = (topic, body) => fetch(`${server.url}/api/v1/topics/${topic}`, { method: 'POST', body });
  for (let i = 0; i < 3; i++) await post('clicks/main/kiosk-1/press', 'green');
  const sign = row.locator('summary', { hasText: '3 malformed reports' });
  await sign.waitFor();
  assert.equal(await row.locator('p').isVisible(), false);
  await sign.focus();
  await page.keyboard.press('Enter');
  await row.locator('p', { hasText: 'unknown colour' }).waitFor();
  // Nothing was counted, and a device that has never counted has no count that could have changed.
  await post('clicks/main/stranger/press', 'green');
  const stranger = page.locator('#devices tr[data-device="stranger"]');
  await stranger.locator('summary', { hasText: '1 malformed report' }).waitFor();
  assert.deepEqual(await stranger.locator('td').allTextContents(), ['–', '0', '0', '–', '×']);
  await showsSoon(page, { red: 1, blue: 0 });
  // Opened, it stays open while the number goes on.
  await post('clicks/main/kiosk-1/count/none', '{}');
  await row.locator('summary', { hasText: '4 malformed reports' }).waitFor();
  await row.locator('p', { hasText: 'count must be followed by' }).waitFor();
  assert.deepEqual(page.complaints, []);
});

test('a reload keeps the counter, and goes on with it', async (t) => {
  const server = await startServer(t);
  const page = await openPage(await browser.profile(t), server.url);
  for (let i = 0; i < 3; i++) await page.locator('#red').click();
  await showsSoon(page, { red: 3, pending: 0 });
  const before = await incarnations(page);
  assert.equal(before.length, 1);

  await page.reload();
  await showsSoon(page, { phase: 'live', red: 3, pending: 0 });
  await page.locator('#red').click();
  await showsSoon(page, { red: 4, pending: 0 });
  assert.deepEqual(await incarnations(page), before);
  assert.deepEqual(page.complaints, []);
});

test('clicks that come before a reloaded tab has its counter back go to that counter', async (t) => {
  const server = await startServer(t);
  const profile = await browser.profile(t);
  const page = await openPage(profile, server.url);
  await page.locator('#red').click();
  await showsSoon(page, { red: 1, pending: 0 });
  const before = await incarnations(page);
  // Stands in for the page before the reload that is slow to go: it is next to hold the counter's name.
  const slow = await openPage(profile, `${server.url}/topics`);
  await slow.evaluate(async (name) => {
    const released = new Promise((resolve) => (globalThis.letGo = resolve));
    globalThis.held = new Promise((resolve) => void navigator.locks.request(name, () => (resolve(), released)));
    const isWaiting = async () => (await navigator.locks.query()).pending.some((lock) => lock.name === name);
    while (!(await isWaiting()));
  }, `latchbus/clicks/main/${before[0]}`);
  await page.reload();
  await slow.evaluate(() => globalThis.held);
  await showsSoon(page, { phase: 'live', red: 1 });
  for (const color of ['red', 'blue']) await page.locator(`#${color}`).click();
  await showsSoon(page, { red: 2, blue: 1, pending: 2 });
  await slow.evaluate(() => globalThis.letGo());
  await showsSoon(page, { red: 2, blue: 1, pending: 0 });
  assert.deepEqual(await incarnations(page), before);
  const witness = await openPage(await browser.profile(t), server.url);
  await showsSoon(witness, { phase: 'live', red: 2, blue: 1 });
});

test('a duplicated tab, which copies the session, does not write to the same counter', async (t) => {
  const server = await startServer(t);
  const profile = await browser.profile(t);
  const original = await openPage(profile, server.url);
  await original.locator('#red').click();
  await showsSoon(original, { red: 1, pending: 0 });
  const session = await original.evaluate(() => ({ ...sessionStorage }));

  const copy = await profile.newPage();
  await copy.addInitScript((entries) => Object.assign(sessionStorage, entries), session);
  await copy.goto(server.url);
  await showsSoon(copy, { phase: 'live', red: 1 });
  // At the same moment, before either tab can hear of the other's clicks.
  const clickFive = () => {
    for (let i = 0; i < 5; i++) document.getElementById('red').click();
  };
  await Promise.all([original.evaluate(clickFive), copy.evaluate(clickFive)]);
  for (const tab of [original, copy]) await showsSoon(tab, { red: 11, pending: 0 });
  assert.equal((await incarnations(original)).length, 2);
});

test('without Web Locks (plain http on a LAN) tabs still count apart and survive a reload', async (t) => {
  const server = await startServer(t);
  const profile = await browser.profile(t);
  await profile.addInitScript(() => Object.defineProperty(Navigator.prototype, 'locks', { value: undefined }));
  const tabs = [await openPage(profile, server.url), await openPage(profile, server.url)];
  for (const tab of tabs) {
    await showsSoon(tab, { phase: 'live' });
    await tab.locator('#red').click();
    await tab.locator('#blue').click();
  }
  for (const tab of tabs) await showsSoon(tab, { red: 2, blue: 2, pending: 0 });
  const own = (page) => page.evaluate(() => sessionStorage.getItem('latchbus/clicks/main/'));
  const before = await own(tabs[0]);
  await tabs[0].reload();
  await showsSoon(tabs[0], { phase: 'live', red: 2 });
  // The hold is a lease here: it takes a moment until it is sure.
  const leased = () => tabs[0].evaluate((name) => localStorage.getItem(`latchbus/clicks/main/${name}/lease`), before);
  await until(
    async () => (await leased()) !== null,
    () => 'the reloaded tab has its counter again',
  );
  for (const tab of tabs) await tab.locator('#red').click();
  for (const tab of tabs) await showsSoon(tab, { red: 4, blue: 2, pending: 0 });
});

test('the keyboard alone is enough, and a key held down is one click', async (t) => {
  const server = await startServer(t);
  const page = await openPage(await browser.profile(t), server.url);
  await showsSoon(page, { phase: 'live' });
  const focused = () => page.evaluate(() => document.activeElement?.id);
  for (let i = 0; i < 7 && (await focused()) !== 'red'; i++) await page.keyboard.press('Tab');
  assert.equal(await focused(), 'red');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Space');
  await showsSoon(page, { red: 2, blue: 0 });
  await page.keyboard.press('Tab');
  assert.equal(await focused(), 'blue');
  // `down` again without `up` is the repeat of a key that is held.
  for (let i = 0; i < 5; i++) await page.keyboard.down('Enter');
  await page.keyboard.up('Enter');
  await showsSoon(page, { red: 2, blue: 1, pending: 0 });
  await until(
    async () => (await page.locator('#announce').textContent()) === 'Red 2, blue 1',
    () => 'the score is said to a screen reader',
  );
  assert.deepEqual(page.complaints, []);
});

test('nothing on the page comes from elsewhere, and its policy allows no inline code', async (t) => {
  const server = await startServer(t);
  const profile = await browser.profile(t);
  const hosts = new Set();
  profile.on('request', (request) => hosts.add(new URL(request.url()).host));
  const page = await openPage(profile, server.url);
  await showsSoon(page, { phase: 'live' });
  assert.deepEqual([...hosts], [server.http]);
  const response = await page.request.get(server.url, { timeout: DEADLINE_MS });
  const policy = response.headers()['content-security-policy'] ?? '';
  assert.match(policy, /default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe/);
  assert.equal((await shown(page)).phase, 'live');
  assert.deepEqual(page.complaints, []);
});
