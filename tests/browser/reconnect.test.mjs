/** The scoreboard when the server goes away and comes back: no click lost, none doubled, nothing stale shown as live. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  openPage,
  showsSoon,
  shown,
  startRelay,
  startServer,
  temporaryDirectory,
  until,
  useBrowser,
} from './support.mjs';

const browser = useBrowser();
/** What Chromium itself says of a connection that fails is no fault of the page. */
const CONNECTION_FAILED = /WebSocket connection to .* failed|net::ERR_|Failed to load resource/;

function assertNoComplaints(page) {
  assert.deepEqual(
    page.complaints.filter((complaint) => !CONNECTION_FAILED.test(complaint)),
    [],
  );
}

test('the server is killed and started again while clicking', async (t) => {
  const dataDir = await temporaryDirectory(t);
  let server = await startServer(t, { dataDir });
  const page = await openPage(await browser.profile(t), server.url);
  await showsSoon(page, { phase: 'live' });

  const made = { red: 0, blue: 0 };
  const click = async (color) => {
    made[color]++;
    await page.locator(`#${color}`).click();
  };
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 10; i++) await click(i % 3 ? 'red' : 'blue');
    // No waiting for the confirmations: some reports die with the server, some acknowledgements too.
    await Promise.all([server.kill(), click('red'), click('red')]);
    await showsSoon(page, { phase: 'offline', ...made });
    for (let i = 0; i < 5; i++) await click('blue');
    await showsSoon(page, { phase: 'offline', ...made });
    const { pending } = await shown(page);
    assert.ok(pending >= 5, `${pending} clicks shown as unconfirmed`);
    assert.match(await page.locator('#detail').textContent(), /next try in \d+ s|^$/);
    assert.equal(await page.locator('#rate').textContent(), '–', 'a rate that is not live is not shown');
    server = await startServer(t, { dataDir, http: server.http, mqtt: server.mqtt });
    await page
      .locator('#retry')
      .click({ timeout: 1_000 })
      .catch(() => {}); // it may be trying already
    await showsSoon(page, { phase: 'live', pending: 0, ...made });
  }
  // What the server has is what was clicked, by a witness that has made no click.
  const witness = await openPage(await browser.profile(t), server.url);
  await showsSoon(witness, { phase: 'live', pending: 0, ...made });
  assertNoComplaints(page);
});

test("a hub that forgot everything gets the open tab's count again, once", async (t) => {
  let server = await startServer(t);
  const page = await openPage(await browser.profile(t), server.url);
  for (let i = 0; i < 4; i++) await page.locator('#red').click();
  await showsSoon(page, { red: 4, pending: 0 });
  await server.kill();
  await showsSoon(page, { phase: 'offline' });
  server = await startServer(t, { http: server.http, mqtt: server.mqtt });
  await showsSoon(page, { phase: 'live', red: 4, blue: 0, pending: 0 });
  const witness = await openPage(await browser.profile(t), server.url);
  await showsSoon(witness, { phase: 'live', red: 4, blue: 0 });
});

test('clicks of a tab that was closed offline are delivered by the next visit, once', async (t) => {
  const dataDir = await temporaryDirectory(t);
  let server = await startServer(t, { dataDir });
  const profile = await browser.profile(t);
  const page = await openPage(profile, server.url);
  await page.locator('#red').click();
  await showsSoon(page, { red: 1, pending: 0 });
  await server.kill();
  await showsSoon(page, { phase: 'offline' });
  for (let i = 0; i < 3; i++) await page.locator('#blue').click();
  await showsSoon(page, { red: 1, blue: 3, pending: 3 });
  await page.close();

  server = await startServer(t, { dataDir, http: server.http, mqtt: server.mqtt });
  const next = await openPage(profile, server.url);
  await showsSoon(next, { phase: 'live', red: 1, blue: 3, pending: 0 });
  await next.locator('#red').click();
  await next.reload();
  await showsSoon(next, { phase: 'live', red: 2, blue: 3, pending: 0 });
  const witness = await openPage(await browser.profile(t), server.url);
  await showsSoon(witness, { phase: 'live', red: 2, blue: 3 });
  assertNoComplaints(next);
});

test('clicks made offline survive a reload of the tab', async (t) => {
  const server = await startServer(t);
  const relay = await startRelay(t, server.http);
  const page = await openPage(await browser.profile(t), relay.url);
  await showsSoon(page, { phase: 'live' });
  relay.freeze();
  for (let i = 0; i < 3; i++) await page.locator('#red').click();
  await showsSoon(page, { red: 3, pending: 3 });
  relay.thaw();
  await page.reload();
  await showsSoon(page, { phase: 'live', red: 3, pending: 0 });
});

test('a connection that is open but dead is noticed, and nothing is lost or missed', async (t) => {
  const server = await startServer(t);
  const relay = await startRelay(t, server.http);
  const page = await openPage(await browser.profile(t), relay.url);
  const present = await openPage(await browser.profile(t), server.url);
  await showsSoon(page, { phase: 'live' });
  await page.locator('#red').click();
  await showsSoon(page, { red: 1, pending: 0 });
  relay.freeze();
  await page.locator('#red').click();
  await showsSoon(page, { red: 2, pending: 1 });
  for (let i = 0; i < 5; i++) await present.locator('#blue').click();
  await showsSoon(present, { blue: 5, pending: 0 });
  await until(
    async () => (await shown(page)).phase !== 'live',
    () => 'the page still says it is live',
  );
  relay.thaw();
  for (const each of [page, present]) {
    await showsSoon(each, { phase: 'live', red: 2, blue: 5, pending: 0 });
    assertNoComplaints(each);
  }
});

test('the browser goes offline and comes back', async (t) => {
  const server = await startServer(t);
  const profile = await browser.profile(t);
  const page = await openPage(profile, server.url);
  await showsSoon(page, { phase: 'live' });
  await page.locator('#red').click();
  await showsSoon(page, { red: 1, pending: 0 });
  await profile.setOffline(true);
  await showsSoon(page, { phase: 'offline', red: 1 });
  await page.locator('#red').click();
  await page.locator('#blue').click();
  await showsSoon(page, { phase: 'offline', red: 2, blue: 1, pending: 2 });
  await profile.setOffline(false);
  // The browser says that it is online again, so the page does not wait for its next attempt.
  await showsSoon(page, { phase: 'live', red: 2, blue: 1, pending: 0 });
  assertNoComplaints(page);
});
