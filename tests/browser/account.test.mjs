/** Users in a real browser: the form, the way in and out, guests, and a sign-in that ends while its page is open. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import { openPage, serverBinary, showsSoon, temporaryDirectory, until, useBrowser } from './support.mjs';
import { PASSWORD, fillIn, showsLive, startWithUsers as start, user } from './users.mjs';

const browser = useBrowser();
const RULES = `
everyone = ["watcher"]
signed_in = ["player"]
[roles.watcher]
subscribe = ["clicks/#", "chat/#", "lab/#"]
[roles.player]
publish = ["#"]
[roles.operator]
admin = true
[users]
anna = ["operator"]
`;

const signOut = (page) => page.getByRole('button', { name: 'Sign out' });
const signIn = (page) => page.getByRole('link', { name: 'Sign in' });
const publishes = (page) => page.locator('#publish').isVisible();

test('a wrong password is told, the right one leads back to the page, clicks count, and out it goes', async (t) => {
  const server = await start(t);
  const profile = await browser.profile(t);
  const page = await openPage(profile, `${server.url}/?room=lab`);
  assert.equal(page.url(), `${server.url}/sign-in?next=%3Froom%3Dlab`);
  await fillIn(page, 'anna', 'wrong');
  assert.equal(await page.getByRole('alert').textContent(), 'Wrong name or password.');
  assert.equal(await page.locator('#user').inputValue(), 'anna');
  await page.locator('#password').fill(PASSWORD);
  await page.locator('#password').press('Enter');
  await page.waitForURL(`${server.url}/?room=lab`);
  await page.locator('#red').click();
  await showsSoon(page, { phase: 'live', red: 1, pending: 0 });
  assert.equal(await page.locator('.account .user').textContent(), 'anna');
  const [cookie, ...others] = await profile.cookies();
  assert.deepEqual(others, []);
  assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.secure], [true, 'Strict', false]);
  assert.equal(await page.evaluate(() => document.cookie), '');

  // A second page of the browser is in, too, and goes out with the first one.
  const other = await openPage(profile, `${server.url}/topics`);
  await showsLive(other);
  await signOut(page).click();
  await page.waitForURL(/\/sign-in\?next=/);
  await other.getByText('You are signed out.').waitFor();
  assert.equal(await other.locator('#phase').textContent(), 'Signed out');
  await fillIn(page, 'bert', PASSWORD);
  await page.waitForURL(`${server.url}/?room=lab`);
  // That one reloads by itself: what anna has seen is not for bert.
  // It may do so before it has answered, which ends what it was asked.
  await other.evaluate(() => dispatchEvent(new Event('online'))).catch(() => {});
  await other.locator('.account .user', { hasText: 'bert' }).waitFor();
  // Chromium says on the console that an answer was 401, and nothing else.
  const strange = page.complaints.filter((text) => !text.includes('401'));
  assert.deepEqual(strange, []);
});

test('the form works without scripts', async (t) => {
  const server = await start(t);
  const page = await openPage(await browser.profile(t, { javaScriptEnabled: false }), `${server.url}/topics`);
  await fillIn(page, 'anna', PASSWORD);
  await page.waitForURL(`${server.url}/topics`);
  assert.deepEqual(page.complaints, []);
});

test('who has tried too often is told for how long', async (t) => {
  const server = await start(t);
  const page = await openPage(await browser.profile(t), server.url);
  const told = /^Too many attempts\. Try again in \d+ seconds?\.$/;
  await until(
    async () => {
      await fillIn(page, 'anna', 'wrong');
      return told.test(await page.getByRole('alert').textContent());
    },
    () => 'too many attempts',
  );
});

test('a guest looks and is offered nothing else; who signs in is', async (t) => {
  const server = await start(t, { rules: RULES, flags: ['--anonymous'] });
  const profile = await browser.profile(t);
  const page = await openPage(profile, server.url);
  await showsSoon(page, { phase: 'live', red: 0 });
  await signIn(page).waitFor();
  for (const color of ['red', 'blue']) assert.equal(await page.locator(`#${color}`).isDisabled(), true);
  assert.equal(await page.locator('#hint').textContent(), 'You can watch here, and not click.');
  assert.equal(await page.locator('#reset').isVisible(), false);
  await page.goto(`${server.url}/topics`);
  await showsLive(page);
  assert.equal(await publishes(page), false);

  await signIn(page).click();
  assert.equal(await page.getByRole('link', { name: 'Go on without signing in' }).count(), 1);
  await fillIn(page, 'bert', PASSWORD);
  await page.waitForURL(`${server.url}/topics`);
  assert.equal(await publishes(page), true);
  await page.goto(server.url);
  await page.locator('#blue').click();
  await showsSoon(page, { phase: 'live', blue: 1, pending: 0 });
  assert.equal(await page.locator('#reset').isVisible(), false);

  // Out again, a guest stays on the page; an administrator is offered more.
  await signOut(page).click();
  await signIn(page).waitFor();
  assert.equal(page.url(), `${server.url}/`);
  await showsSoon(page, { phase: 'live', blue: 1 });
  assert.equal(await page.locator('#blue').isDisabled(), true);
  await signIn(page).click();
  await fillIn(page, 'anna', PASSWORD);
  await page.locator('#reset').waitFor();
  assert.deepEqual(page.complaints, []);
});

test('a user who is removed while the page is open is told, and keeps the clicks for later', async (t) => {
  const server = await start(t);
  const page = await openPage(await browser.profile(t), server.url);
  await fillIn(page, 'anna', PASSWORD);
  await showsSoon(page, { phase: 'live', red: 0 });
  await user(server.users, ['remove', 'anna']);
  await page.getByText('You are signed out. Sign in').waitFor();
  await page.locator('#red').click();
  await page.locator('#stopped').getByRole('link', { name: 'Sign in' }).click();
  await fillIn(page, 'anna', PASSWORD);
  assert.equal(await page.getByRole('alert').textContent(), 'Wrong name or password.');
  await fillIn(page, 'bert', PASSWORD);
  await showsSoon(page, { phase: 'live', red: 1, pending: 0 });
});

test('over TLS with a private authority the cookie is bound to it', async (t) => {
  const directory = await temporaryDirectory(t);
  execFileSync(serverBinary(), ['cert', directory, 'localhost', '127.0.0.1']);
  const file = (name) => path.join(directory, name);
  const tls = ['--http-tls', '127.0.0.1:0', '--tls-cert', file('server.pem'), '--tls-key', file('server.key')];
  const server = await start(t, { flags: tls });
  const profile = await browser.profile(t, { ignoreHTTPSErrors: true });
  const page = await openPage(profile, `${server.secureUrl}/chat`);
  await fillIn(page, 'anna', PASSWORD);
  await page.waitForURL(`${server.secureUrl}/chat`);
  await showsLive(page);
  const [{ name, secure, path: cookiePath }] = await profile.cookies();
  assert.match(name, /^__Host-latchbus-session-\d+$/);
  assert.deepEqual([secure, cookiePath], [true, '/']);
  assert.deepEqual(page.complaints, []);
});
