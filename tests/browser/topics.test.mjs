/** The topics page: a live tree, filters, values in three views, publish and clear, ten thousand topics. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HOSTILE, kept, mosquittoPub, mqttClient, openPage, put, startServer, until, useBrowser } from './support.mjs';

const browser = useBrowser();

const rows = (page) =>
  page.evaluate(() =>
    [...document.querySelectorAll('#tree .row:not([hidden])')]
      .map((row) => ({
        path: row.dataset.path,
        value: row.querySelector('.value').textContent,
        top: row.getBoundingClientRect().top,
      }))
      .sort((a, b) => a.top - b.top)
      .map(({ path, value }) => [path, value]),
  );

async function showsRows(page, expected) {
  let last;
  await until(
    async () => JSON.stringify((last = await rows(page))) === JSON.stringify(expected),
    () => `expected the rows ${JSON.stringify(expected)}, got ${JSON.stringify(last)}`,
  );
}

async function hasText(page, id, expected) {
  let last;
  await until(
    async () => {
      last = await page.locator(`#${id}`).textContent();
      return expected instanceof RegExp ? expected.test(last) : last === expected;
    },
    () => `expected #${id} to be ${expected}, it is ${last}`,
  );
}

test('everything that is kept, live, with the exact bytes of a topic in three views', async (t) => {
  const server = await startServer(t);
  await mosquittoPub(server, 'lab/temp', '-r', '-m', '{"c": 21.50}');
  await mosquittoPub(server, 'lab/door/state', '-r', '-m', 'closed');
  const page = await openPage(await browser.profile(t), `${server.url}/topics`);
  await until(
    async () => (await rows(page)).some(([path]) => path === '$SYS'),
    () => "everything, and the hub's own too",
  );
  await page.locator('#filter').fill('lab/#');
  await page.locator('#filter').press('Enter');
  await showsRows(page, [
    ['lab', ''],
    ['lab/door', ''],
    ['lab/door/state', 'closed'],
    ['lab/temp', '{"c":21.50}'],
  ]);
  await page.locator('.row[data-path="lab/temp"]').click();
  await hasText(page, 'payload', '{\n  "c": 21.50\n}');
  await hasText(page, 'size', '12 B');
  await hasText(page, 'kept', 'kept');
  await page.locator('#view-text').check();
  await hasText(page, 'payload', '{"c": 21.50}');
  await page.locator('#view-hex').check();
  await hasText(page, 'payload', /^0000 {2}7b 22 63 22 3a 20 32 31 2e 35 30 7d +\{"c": 21\.50\}$/);

  // It follows.
  await page.locator('#view-text').check();
  await mosquittoPub(server, 'lab/temp', '-r', '-m', '{"c":22}');
  await hasText(page, 'payload', '{"c":22}');
  await mosquittoPub(server, 'lab/attic', '-r', '-m', 'on');
  await until(
    async () => (await rows(page))[1]?.[0] === 'lab/attic',
    () => 'a new topic in its place',
  );
  assert.deepEqual(page.complaints, []);
});

test('an event is marked, does not hide what is kept, and every message is counted', async (t) => {
  const server = await startServer(t);
  await mosquittoPub(server, 'lab/temp', '-r', '-m', '21.50');
  const profile = await browser.profile(t, { viewport: { width: 1440, height: 900 } });
  const page = await openPage(profile, `${server.url}/topics?filter=lab/%23`);
  await showsRows(page, [['lab', ''], ['lab/temp', '21.50']]);
  const cells = (path) =>
    page.locator(`.row[data-path="${path}"]`).evaluate((row) =>
      Object.fromEntries(['kind', 'value', 'updates', 'size'].map((cell) => [cell, row.querySelector(`.${cell}`).innerText])),
    );
  const showsCells = async (path, expected) => {
    let last;
    await until(
      async () => JSON.stringify((last = await cells(path))) === JSON.stringify(expected),
      () => `expected ${path} to show ${JSON.stringify(expected)}, got ${JSON.stringify(last)}`,
    );
  };
  // As it was published.
  await showsCells('lab/temp', { kind: '', value: '21.50', updates: '1', size: '5 B' });
  await mosquittoPub(server, 'lab/bell', '-m', 'ding');
  await page.locator('.row[data-path="lab/bell"]').click();
  await showsCells('lab/bell', { kind: 'event', value: 'ding', updates: '1', size: '4 B' });
  await hasText(page, 'kept', /^an event/);
  await hasText(page, 'payload', 'ding');
  assert.equal(await page.locator('#clear').isDisabled(), true);

  await mosquittoPub(server, 'lab/temp', '-m', 'an event on a topic with a value');
  await showsCells('lab/temp', { kind: '', value: '21.50', updates: '2', size: '5 B' });
  await mosquittoPub(server, 'lab/bell', '-r', '-m', 'silent');
  await showsCells('lab/bell', { kind: '', value: 'silent', updates: '2', size: '6 B' });
  await hasText(page, 'kept', 'kept');
  await hasText(page, 'payload', 'silent');
  assert.deepEqual(page.complaints, []);
});

test('what this page has not taken is counted', async (t) => {
  const server = await startServer(t);
  const profile = await browser.profile(t);
  const page = await openPage(profile, `${server.url}/topics?filter=lab/%23`);
  await hasText(page, 'own-conflated', '0');
  const publisher = await mqttClient(t, server);
  for (let i = 1; i <= 50; i++) publisher.publish('lab/fast', String(i), { retain: true });
  await showsRows(page, [['lab', ''], ['lab/fast', '50']]);
  const number = async (locator) => Number(await locator.textContent());
  const seen = await number(page.locator('.row[data-path="lab/fast"] .updates'));
  assert.ok(seen < 50, `${seen} of 50`);
  // The page's other subscription, to the hub's own topics, may have lost something too.
  await until(
    async () => (await number(page.locator('#own-conflated'))) >= 50 - seen,
    () => `expected ${50 - seen} conflated values`,
    30_000,
  );
  assert.deepEqual(page.complaints, []);
});

test('the filter takes MQTT filters, keeps them in the address, and says what is wrong with others', async (t) => {
  const server = await startServer(t);
  for (const topic of ['lab/a/temp', 'lab/b/temp', 'lab/b/door']) await mosquittoPub(server, topic, '-r', '-m', '1');
  const page = await openPage(await browser.profile(t), `${server.url}/topics`);
  await page.locator('#filter').fill('lab/+/temp');
  await page.locator('#filter').press('Enter');
  await hasText(page, 'topics-tally', '2');
  assert.equal(new URL(page.url()).search, '?filter=lab%2F%2B%2Ftemp');
  await page.locator('#filter').fill('lab/b#');
  await hasText(page, 'filter-problem', '# stands alone, as the last level.');
  await hasText(page, 'topics-tally', '2');
  await page.locator('[data-filter="$SYS/#"]').click();
  await until(
    async () => (await rows(page))[0]?.[0] === '$SYS',
    () => "the hub's own topics",
  );
  assert.equal(await page.locator('#filter-problem').textContent(), '');
  await hasText(page, 'fact-kept', /^\d/);
  await hasText(page, 'fact-conflated', /^\d/);
  await page.locator('#filter').fill('none/of/these');
  await page.locator('#filter').press('Enter');
  await hasText(page, 'tree-note', 'No topic matches.');
  assert.deepEqual(page.complaints, []);
});

test('publish and clear, and a refusal with its reason', async (t) => {
  const server = await startServer(t);
  const page = await openPage(await browser.profile(t), `${server.url}/topics?filter=lab/%23`);
  const other = await openPage(await browser.profile(t), `${server.url}/topics?filter=lab/%23`);
  await page.locator('#publish-topic').fill('lab/lamp');
  await page.locator('#publish-payload').fill('{"on": tru');
  await page.getByRole('button', { name: 'Publish' }).click();
  await hasText(page, 'publish-outcome', /^This is not JSON/);
  await page.locator('#publish-payload').fill('{"on": true}');
  await page.getByRole('button', { name: 'Publish' }).click();
  await hasText(page, 'publish-outcome', /^Published lab\/lamp at revision \d/);
  for (const each of [page, other]) await showsRows(each, [['lab', ''], ['lab/lamp', '{"on":true}']]);
  const kept = await fetch(`${server.url}/api/v1/topics/lab/lamp`);
  assert.equal(await kept.text(), '{"on": true}', 'byte by byte as typed');

  await page.locator('#publish-hex').check();
  await page.locator('#publish-topic').fill('lab/raw');
  await page.locator('#publish-payload').fill('00 ff');
  await page.getByRole('button', { name: 'Publish' }).click();
  await showsRows(other, [['lab', ''], ['lab/lamp', '{"on":true}'], ['lab/raw', '00 ff']]);

  await page.locator('#publish-topic').fill('$SYS/broker/uptime');
  await page.getByRole('button', { name: 'Publish' }).click();
  await hasText(page, 'publish-outcome', /^Refused \(not_allowed\)/);

  await page.locator('.row[data-path="lab/lamp"]').click();
  await page.locator('#clear').click();
  await page.locator('#clear-yes').click();
  await hasText(page, 'clear-outcome', /^Cleared at revision/);
  for (const each of [page, other]) await showsRows(each, [['lab', ''], ['lab/raw', '00 ff']]);
  await hasText(page, 'kept', 'no value');
  assert.equal((await fetch(`${server.url}/api/v1/topics/lab/lamp`)).status, 404);
  assert.deepEqual(page.complaints, []);
});

test('“Edit a copy” publishes byte for byte what was there, and numbers have their digits', async (t) => {
  const server = await startServer(t);
  for (const [i, payload] of HOSTILE.entries()) await put(server, `lab/${i}`, payload);
  await put(server, 'lab/raw', new Uint8Array([0, 255, 128]));
  const page = await openPage(await browser.profile(t), `${server.url}/topics?filter=lab/%23`);
  const publish = async (topic) => {
    await page.locator('#publish-topic').fill(topic);
    await page.getByRole('button', { name: 'Publish' }).click();
    await until(
      async () => (await page.locator('#publish-outcome').textContent()).startsWith(`Published ${topic} at`),
      () => `published ${topic}`,
    );
  };
  const select = async (topic) => {
    await page.locator(`.row[data-path="${topic}"]`).click();
    await hasText(page, 'topic', topic);
  };
  for (const [i, payload] of HOSTILE.entries()) {
    await select(`lab/${i}`);
    // As a text node has them, and a paragraph shows them.
    const digits = payload.match(/[0-9.eE+]+/g)?.join() ?? '';
    const shown = [await page.locator('#payload').textContent(), await page.locator(`.row[data-path="lab/${i}"] .value`).textContent()];
    for (const text of shown) if (payload.length < 100) assert.equal(text.match(/[0-9.eE+]+/g)?.join() ?? '', digits);
    await page.locator('#edit').click();
    await publish(`copy/${i}`);
    assert.equal(await kept(server, `copy/${i}`), payload);
  }
  await select('lab/raw');
  await page.locator('#edit').click();
  await publish('copy/raw');
  const copy = await fetch(`${server.url}/api/v1/topics/copy/raw`);
  assert.deepEqual(new Uint8Array(await copy.arrayBuffer()), new Uint8Array([0, 255, 128]));

  // An edit changes what is edited.
  const at = HOSTILE.findIndex((payload) => payload.includes('"big"'));
  await select(`lab/${at}`);
  await page.locator('#edit').click();
  const area = page.locator('#publish-payload');
  await area.fill((await area.inputValue()).replace('21.50', '22.50'));
  await publish('copy/edited');
  assert.equal(await kept(server, 'copy/edited'), HOSTILE[at].replace('21.50', '22.50'));

  // An event has its bytes too.
  await mosquittoPub(server, 'lab/event', '-m', '{"n": 9007199254740993.0}');
  await select('lab/event');
  await page.locator('#view-text').check();
  await hasText(page, 'payload', '{"n": 9007199254740993.0}');
  assert.deepEqual(page.complaints, []);
});

test('the tree by the keyboard alone', async (t) => {
  const server = await startServer(t);
  for (const topic of ['k/a/x', 'k/a/y', 'k/b']) await mosquittoPub(server, topic, '-r', '-m', topic);
  const page = await openPage(await browser.profile(t), `${server.url}/topics?filter=k/%23`);
  await showsRows(page, [['k', ''], ['k/a', ''], ['k/a/x', 'k/a/x'], ['k/a/y', 'k/a/y'], ['k/b', 'k/b']]);
  const focused = () => page.evaluate(() => document.activeElement?.id);
  for (let i = 0; i < 15 && (await focused()) !== 'tree'; i++) await page.keyboard.press('Tab');
  const active = () =>
    page.evaluate(() => {
      const id = document.getElementById('tree').getAttribute('aria-activedescendant');
      return id && document.getElementById(id).dataset.path;
    });
  assert.equal(await active(), 'k');
  await page.keyboard.press('ArrowRight');
  assert.equal(await active(), 'k/a');
  await page.keyboard.press('ArrowLeft');
  await showsRows(page, [['k', ''], ['k/a', '2 topics'], ['k/b', 'k/b']]);
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('ArrowDown');
  assert.equal(await active(), 'k/a/y');
  await hasText(page, 'payload', 'k/a/y');
  await page.keyboard.press('End');
  assert.equal(await active(), 'k/b');
  await page.keyboard.press('Home');
  assert.equal(await active(), 'k');
  // To the button that clears, and back out of it.
  await page.keyboard.press('End');
  await hasText(page, 'payload', 'k/b');
  for (let i = 0; i < 15 && (await focused()) !== 'clear'; i++) await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  assert.equal(await focused(), 'clear-no');
  await page.keyboard.press('Enter');
  assert.equal(await focused(), 'clear');
  assert.deepEqual(page.complaints, []);
});

test('ten thousand topics: all there, none in the way', async (t) => {
  const server = await startServer(t);
  const publisher = await mqttClient(t, server);
  for (let i = 0; i < 10_000; i++) publisher.publish(`many/group-${i % 100}/t-${i}`, String(i), { retain: true });
  await publisher.flushed();
  const page = await openPage(await browser.profile(t), `${server.url}/topics?filter=many/%23`);
  await hasText(page, 'topics-tally', /^10.000$/);
  await page.locator('#open-all').click();
  const result = await page.evaluate(async () => {
    const tree = document.getElementById('tree');
    const frame = () => new Promise(requestAnimationFrame);
    let longest = 0;
    for (let i = 0; i <= 60; i++) {
      const start = performance.now();
      tree.scrollTop = (tree.scrollHeight * i) / 60;
      await frame();
      await frame();
      longest = Math.max(longest, (performance.now() - start) / 2);
    }
    return { longest, rows: tree.querySelectorAll('.row').length, height: tree.scrollHeight };
  });
  console.log(`# 10,000 topics: ${result.rows} rows in the document, longest frame while scrolling ${result.longest.toFixed(1)} ms`);
  assert.ok(result.rows < 100, `${result.rows} rows in the document`);
  assert.ok(result.height > 10_100 * 20, 'and all of them in the height');
  await until(
    async () => (await rows(page)).at(-1)?.[0] === 'many/group-99/t-9999',
    () => 'the last topic at the end',
  );
  publisher.publish('many/group-99/t-9999', 'changed', { retain: true });
  await until(
    async () => (await rows(page)).at(-1)?.[1] === 'changed',
    () => 'and it is live',
  );
  assert.deepEqual(page.complaints, []);
});

test('offline: the last known values, shown as such, and live again after the return', async (t) => {
  const server = await startServer(t);
  await mosquittoPub(server, 'lab/a', '-r', '-m', '1');
  const profile = await browser.profile(t);
  const page = await openPage(profile, `${server.url}/topics?filter=lab/%23`);
  await showsRows(page, [['lab', ''], ['lab/a', '1']]);
  await profile.setOffline(true);
  await until(
    async () => (await page.evaluate(() => document.body.dataset.phase)) === 'offline',
    () => 'the page says that it is offline',
  );
  await mosquittoPub(server, 'lab/b', '-r', '-m', '2');
  await mosquittoPub(server, 'lab/a', '-r', '-n');
  assert.deepEqual(await rows(page), [['lab', ''], ['lab/a', '1']]);
  await profile.setOffline(false);
  await showsRows(page, [['lab', ''], ['lab/b', '2']]);
});
