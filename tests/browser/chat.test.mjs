/** The chat page: one conversation with MQTT, HTTP and other tabs. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { mosquittoPub, mosquittoSub, openPage, put, startServer, temporaryDirectory, until, useBrowser } from './support.mjs';

const { profile } = useBrowser();

const lines = (page) => page.locator('#log p').evaluateAll((items) => items.map((item) => [...item.childNodes].slice(1).map((node) => node.textContent)));
const shows = (page, expected) => {
  let last;
  return until(
    async () => JSON.stringify((last = await lines(page))) === JSON.stringify(expected),
    () => `expected ${JSON.stringify(expected)}, the page shows ${JSON.stringify(last)}`,
  );
};
const contains = (page, selector, text) => {
  let last;
  return until(
    async () => (last = await page.locator(selector).textContent()).includes(text),
    () => `expected ${text} in ${selector}, not ${last}`,
  );
};

async function open(t, server, name, query = '') {
  const page = await openPage(await profile(t), `${server.url}/chat${query}`);
  await page.locator('#name').fill(name);
  await page.locator('#name').dispatchEvent('change');
  await page.locator('body[data-phase="live"]').waitFor();
  return page;
}

async function say(page, text) {
  await page.locator('#text').fill(text);
  await page.keyboard.press('Enter');
}

test('one conversation: a page, another page, MQTT and HTTP; who types, who is there; over a restart', async (t) => {
  const dataDir = await temporaryDirectory(t);
  const server = await startServer(t, { dataDir });
  await mosquittoPub(server, 'chat/lobby', '-r', '-m', 'hello from a shell');
  const sub = mosquittoSub(t, server, 'chat/lobby');
  await sub.line('chat/lobby hello from a shell');
  const ada = await open(t, server, 'Ada');
  await shows(ada, [['someone', 'hello from a shell']]);
  const bob = await open(t, server, 'Bob');
  await say(bob, 'hi <b>all</b>');
  await sub.line('chat/lobby {"name":"Bob","text":"hi <b>all</b>"}');
  await put(server, 'chat/lobby', '{"name":"Eve","text":"by HTTP"}');
  // Not retained, and heard by those who are there.
  await mosquittoPub(server, 'chat/lobby', '-m', 'an event');
  const all = [
    ['someone', 'hello from a shell'],
    ['Bob', 'hi <b>all</b>'],
    ['Eve', 'by HTTP'],
    ['someone', 'an event'],
  ];
  await shows(ada, all);
  await shows(bob, all);
  await contains(ada, '#present', 'Ada, Bob');
  // It is shown for a few seconds, in which a busy machine may not look.
  await ada.evaluate(() => {
    const typing = document.getElementById('typing');
    globalThis.typed = typing.textContent;
    new MutationObserver(() => (globalThis.typed += `;${typing.textContent}`)).observe(typing, {
      childList: true,
      characterData: true,
      subtree: true,
    });
  });
  await bob.locator('#text').fill('I am wri');
  await until(
    () => ada.evaluate(() => globalThis.typed.includes('Bob is typing')),
    () => 'that Bob is typing',
  );
  assert.deepEqual([...ada.complaints, ...bob.complaints], []);
  // The page's policy allows no foreign script; the debugger does.
  await ada.evaluate(await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8'));
  const { violations } = await ada.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), []);

  await server.kill();
  await ada.locator('body:not([data-phase="live"])').waitFor();
  await say(ada, 'are you there?');
  await contains(ada, '#trouble', 'Not sent');
  assert.equal(await ada.locator('#text').inputValue(), 'are you there?');
  const next = await startServer(t, { dataDir, http: server.http });
  await put(next, 'chat/lobby', 'back');
  await shows(ada, [...all, ['someone', 'back']]);
  await ada.keyboard.press('Enter');
  await shows(bob, [...all, ['someone', 'back'], ['Ada', 'are you there?']]);
  assert.equal(await ada.locator('#text').inputValue(), '');
});

test('what is older comes page by page; another room is another conversation', async (t) => {
  const server = await startServer(t);
  for (let n = 0; n < 45; n++) await put(server, 'chat/den', `${n}`);
  await put(server, 'chat/lobby', 'elsewhere');
  const page = await open(t, server, 'Ada', '?room=den');
  const numbers = (from) => [...Array(45 - from).keys()].map((n) => ['someone', `${n + from}`]);
  await shows(page, numbers(25));
  await page.locator('#earlier').click();
  await shows(page, numbers(5));
  await page.locator('#earlier').click();
  await shows(page, numbers(0));
  assert.equal(await page.locator('#earlier').isHidden(), true);
  assert.deepEqual(page.complaints, []);
  const other = await open(t, server, 'Bob', '?room=%23');
  await shows(other, [['someone', 'elsewhere']]);
});
