/** For everyone: no serious axe-core finding on any page in any state, no jump, no chatter, no motion where unwanted. */
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { mosquittoPub, mosquittoPubRejected, mqttClient, openPage, showsSoon, startServer, until, useBrowser } from './support.mjs';

const browser = useBrowser();
const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const PHONE = { width: 390, height: 844 };

/** The page's policy allows no foreign script, so axe-core goes in through the debugger, as page.evaluate does. */
async function assertAccessible(page, what) {
  const { readFile } = await import('node:fs/promises');
  await page.evaluate(`${await readFile(AXE, 'utf8')}; undefined`);
  const found = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { resultTypes: ['violations'] });
    return violations.map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.map(({ html }) => html.slice(0, 200)) }));
  });
  const serious = found.filter(({ impact }) => ['serious', 'critical'].includes(impact));
  assert.deepEqual(serious, [], what);
}

async function overflow(page) {
  return page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}

async function filled(t) {
  const server = await startServer(t);
  const long = 'a-very-long-device-name-in-the-north-wing-of-the-third-floor-01';
  await mosquittoPub(server, `clicks/main/${long}/count/1-00c0ffee`, '-r', '-m', '{"red":1234567890,"blue":1234567890}');
  await mosquittoPub(server, 'clicks/main/kiosk-1/status', '-r', '-m', 'online');
  await mosquittoPubRejected(server, 'clicks/main/bad/count/1-00c0ffee', '-r', '-m', 'nonsense');
  await mosquittoPubRejected(server, 'clicks/main/no device/press', '-m', 'red');
  return server;
}

for (const colorScheme of ['light', 'dark']) {
  test(`axe-core has no serious finding (${colorScheme})`, async (t) => {
    const server = await filled(t);
    const profile = await browser.profile(t, { colorScheme });
    const page = await openPage(profile, server.url);
    await showsSoon(page, { phase: 'live', red: 1_234_567_890 });
    await page.locator('#devices-trouble', { hasText: '1 malformed report' }).waitFor();
    await page.locator('tr[data-device=bad] summary').click();
    await assertAccessible(page, 'scoreboard');
    await page.locator('#rooms summary').click();
    await page.locator('#rooms-list a[aria-current]').waitFor();
    await assertAccessible(page, 'scoreboard with the rooms');
    await page.keyboard.press('Escape');

    const topics = await openPage(profile, `${server.url}/topics`);
    await topics.locator('.row').first().click();
    await topics.locator('#open-all').click();
    await topics.locator('.row[data-path="clicks/main/values"]').click();
    await topics.locator('#payload', { hasText: '1234567890' }).waitFor();
    await topics.locator('#clear').click();
    await assertAccessible(topics, 'topics');

    const clients = await openPage(profile, `${server.url}/clients`);
    await clients.locator('.pick').first().click();
    await clients.locator('#subscribed').waitFor();
    await assertAccessible(clients, 'clients');
    await clients.locator('#disconnect').click();
    await assertAccessible(clients, 'clients with a question');
    await clients.keyboard.press('Escape');

    await profile.setOffline(true);
    for (const each of [page, topics, clients]) {
      await until(
        () => each.evaluate(() => document.body.dataset.phase === 'offline'),
        () => 'the page says that it is offline',
      );
      await assertAccessible(each, 'offline');
    }
    await profile.setOffline(false);
    const refused = await openPage(profile, `${server.url}/?room=a%2Fb`);
    await refused.locator('#notice').waitFor({ state: 'visible' });
    await assertAccessible(refused, 'a name that is no room');
  });
}

test('nothing sticks out: phone, laptop and wall, from left to right and from right to left', async (t) => {
  const server = await filled(t);
  for (const viewport of [{ width: 320, height: 640 }, PHONE, { width: 1440, height: 900 }, { width: 1920, height: 1080 }]) {
    const profile = await browser.profile(t, { viewport });
    const page = await openPage(profile, server.url);
    await showsSoon(page, { phase: 'live', red: 1_234_567_890 });
    const topics = await openPage(profile, `${server.url}/topics`);
    await topics.locator('.row').first().waitFor();
    await mqttClient(t, server, { clientId: 'a very long name of a client '.repeat(30), filters: [`x/${'y'.repeat(400)}`] });
    const clients = await openPage(profile, `${server.url}/clients`);
    await clients.locator('.pick', { hasText: 'a very long name' }).click();
    await clients.locator('#subscribed').waitFor();
    for (const dir of ['ltr', 'rtl']) {
      for (const each of [page, topics, clients]) {
        await each.evaluate((value) => (document.documentElement.dir = value), dir);
        assert.equal(await overflow(each), 0, `${each.url()} ${viewport.width} ${dir}`);
      }
      const { width, box } = await page.evaluate(() => {
        const box = document.getElementById('red-count').getBoundingClientRect();
        return { width: document.getElementById('red').getBoundingClientRect().width, box: box.width };
      });
      assert.ok(box <= width, `a count of ${box} px in a button of ${width} px`);
    }
  }
});

test('no layout jump from the first paint to live, offline and live again', async (t) => {
  const server = await startServer(t);
  for (const viewport of [PHONE, { width: 1440, height: 900 }]) {
    const profile = await browser.profile(t, { viewport });
    await profile.addInitScript(() => {
      globalThis.shift = 0;
      new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) globalThis.shift += entry.hadRecentInput ? 0 : entry.value;
      }).observe({ type: 'layout-shift', buffered: true });
    });
    const page = await openPage(profile, server.url);
    await showsSoon(page, { phase: 'live' });
    await profile.setOffline(true);
    await showsSoon(page, { phase: 'offline' });
    await profile.setOffline(false);
    await showsSoon(page, { phase: 'live' });
    const shift = await page.evaluate(() => globalThis.shift);
    assert.ok(shift < 0.02, `cumulative layout shift ${shift} at ${viewport.width}`);
  }
});

test('who wants no motion gets none', async (t) => {
  const server = await startServer(t);
  const profile = await browser.profile(t, { reducedMotion: 'reduce' });
  const page = await openPage(profile, server.url);
  const moving = () =>
    page.evaluate(() => {
      const of = (node, part) => getComputedStyle(node, part).transitionDuration;
      return [...document.querySelectorAll('*')].flatMap((node) => [of(node), of(node, '::before')]);
    });
  assert.deepEqual([...new Set(await moving())].filter((duration) => /[1-9]/.test(duration)), []);
  await page.emulateMedia({ reducedMotion: 'no-preference' });
  assert.ok((await moving()).some((duration) => /[1-9]/.test(duration)), 'with motion there is some');
});

test('the room switcher: rooms as links, and a new one by its name', async (t) => {
  const server = await startServer(t);
  await mosquittoPub(server, 'clicks/lobby/kiosk/press', '-m', 'red 3');
  const page = await openPage(await browser.profile(t), server.url);
  await showsSoon(page, { phase: 'live' });
  await page.locator('#rooms summary').focus();
  await page.keyboard.press('Enter');
  const link = page.locator('#rooms-list a', { hasText: 'lobby' });
  await page.locator('#rooms-list li', { hasText: 'lobby' }).locator('.number', { hasText: '3' }).waitFor();
  assert.equal(await link.evaluate(({ href }) => href), `${server.url}/?room=lobby`);
  await page.keyboard.press('Escape');
  assert.equal(await link.isVisible(), false);
  await page.keyboard.press('Enter');
  await link.click();
  await showsSoon(page, { phase: 'live', red: 3 });
  assert.equal(await page.locator('#room').textContent(), 'lobby');

  await page.locator('#rooms summary').click();
  await page.locator('#rooms-name').fill('a/b');
  await page.keyboard.press('Enter');
  assert.equal(await page.locator('#rooms-name').evaluate((input) => input.validity.customError), true);
  await page.locator('#rooms-name').fill('new-room');
  await page.keyboard.press('Enter');
  await page.waitForURL('**/?room=new-room');
  await showsSoon(page, { phase: 'live', red: 0 });
  assert.deepEqual(page.complaints, []);
});
