/** The operator's hand: rooms that are reset and devices that are removed, on the page and behind its back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { kept, mosquittoPub, openPage, put, showsSoon, startServer, until, useBrowser } from './support.mjs';

const browser = useBrowser();

const row = (page, device) => page.locator(`tr[data-device="${device}"]`);

/** The cells of a device's row, without the last one with its button. */
const cells = async (page, device) => (await row(page, device).locator('td').allTextContents()).slice(1, 3);

async function rowShowsSoon(page, device, expected) {
  let last;
  const fits = async () => {
    last = await cells(page, device);
    return JSON.stringify(last) === JSON.stringify(expected);
  };
  await until(fits, () => `expected ${expected} of ${device}, the page shows ${last}`);
}

async function answer(page, yes) {
  await page.locator(yes ? '#ask-yes' : '#ask-no').click();
}

test('a room is reset while a page holds offline clicks: the old ones are gone, the new ones count, once', async (t) => {
  const server = await startServer(t);
  const away = await browser.profile(t);
  const [page, operator] = [await openPage(away, server.url), await openPage(await browser.profile(t), server.url)];
  for (let i = 0; i < 4; i++) await page.locator('#red').click();
  await showsSoon(page, { phase: 'live', red: 4, pending: 0 });
  await showsSoon(operator, { phase: 'live', red: 4 });
  await away.setOffline(true);
  await showsSoon(page, { phase: 'offline', red: 4 });
  for (let i = 0; i < 3; i++) await page.locator('#blue').click();
  await page.locator('#red').click();
  await showsSoon(page, { phase: 'offline', red: 5, blue: 3, pending: 4 });

  await operator.locator('#reset').click();
  await answer(operator, true);
  await showsSoon(operator, { red: 0, blue: 0 });
  const device = await page.evaluate(() => localStorage.getItem('latchbus/device'));
  await rowShowsSoon(operator, device, ['0', '0']);

  await away.setOffline(false);
  for (const each of [page, operator]) {
    await showsSoon(each, { phase: 'live', red: 1, blue: 3, pending: 0 });
    await rowShowsSoon(each, device, ['1', '3']);
  }
  // Whoever comes later, or again, sees the same.
  await page.reload();
  await showsSoon(page, { phase: 'live', red: 1, blue: 3, pending: 0 });
  await page.locator('#red').click();
  await showsSoon(operator, { red: 2, blue: 3 });
  const late = await openPage(await browser.profile(t), server.url);
  await showsSoon(late, { phase: 'live', red: 2, blue: 3 });
  await rowShowsSoon(late, device, ['2', '3']);

  // What the reset has taken comes back with it, and what has come since stays.
  await operator.locator('#undo').click();
  for (const each of [page, operator, late]) {
    await showsSoon(each, { red: 6, blue: 3 });
    await rowShowsSoon(each, device, ['6', '3']);
  }
  for (const each of [operator, late]) assert.deepEqual(each.complaints, []);
});

test('a device is removed after a question, stays away with its old count, and is back with a click', async (t) => {
  const server = await startServer(t);
  const page = await openPage(await browser.profile(t), server.url);
  const other = await openPage(await browser.profile(t), server.url);
  const count = (red) => put(server, 'clicks/main/kiosk-1/count/1-0badcafe', `{"red":${red},"blue":0}`);
  await count(5);
  await mosquittoPub(server, 'clicks/main/kiosk-1/status', '-r', '-m', 'online');
  await mosquittoPub(server, 'clicks/main/kiosk-2/press', '-m', 'blue');
  await showsSoon(page, { phase: 'live', red: 5, blue: 1 });
  await rowShowsSoon(page, 'kiosk-1', ['5', '0']);

  const remove = page.getByRole('button', { name: 'Remove kiosk-1' });
  await remove.click();
  await answer(page, false);
  await rowShowsSoon(page, 'kiosk-1', ['5', '0']);
  await remove.click();
  assert.equal(await page.locator('#ask-title').textContent(), 'Remove kiosk-1?');
  await answer(page, true);
  for (const each of [page, other]) {
    await showsSoon(each, { red: 0, blue: 1 });
    await row(each, 'kiosk-1').waitFor({ state: 'detached' });
    assert.equal(await each.locator('#devices-tally').textContent(), '1');
  }
  assert.equal(await page.locator('#operated').textContent(), 'kiosk-1 was removed.');

  // It does not know of it: what it says is what it said. A page that comes now does not list it either.
  await count(5);
  assert.equal(await kept(server, 'clicks/main/kiosk-1/count/1-0badcafe'), '{"red":5,"blue":0}');
  const late = await openPage(await browser.profile(t), server.url);
  await showsSoon(late, { phase: 'live', red: 0, blue: 1 });
  await rowShowsSoon(late, 'kiosk-2', ['0', '1']);
  assert.equal(await row(late, 'kiosk-1').count(), 0);
  assert.equal(await late.locator('#devices-tally').textContent(), '1');

  await count(7);
  for (const each of [page, late]) await rowShowsSoon(each, 'kiosk-1', ['2', '0']);
  await page.locator('#undo').click();
  for (const each of [page, late]) {
    await showsSoon(each, { red: 7, blue: 1 });
    await rowShowsSoon(each, 'kiosk-1', ['7', '0']);
  }
  assert.equal(await page.locator('#undo').isVisible(), false);
  for (const each of [page, other, late]) assert.deepEqual(each.complaints, []);
});
