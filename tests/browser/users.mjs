/** A server with users, and the form on which they sign in. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { serverBinary, startServer, temporaryDirectory, until } from './support.mjs';

export const PASSWORD = 'correct horse';

/** `latchbus user …` on the users of this test. */
export async function user(file, words, password) {
  const child = spawn(serverBinary(), ['user', ...words, '--file', file, ...(password ? ['--password-stdin'] : [])]);
  child.stdin.end(password);
  const status = await new Promise((resolve) => child.once('close', resolve));
  assert.equal(status, 0, `latchbus user ${words}`);
}

/** A server with the users anna and bert, and with rules if there are any. @param {import('node:test').TestContext} t */
export async function startWithUsers(t, { rules, flags = [], http } = {}) {
  const directory = await temporaryDirectory(t);
  const users = path.join(directory, 'users');
  for (const name of ['anna', 'bert']) await user(users, ['add', name], PASSWORD);
  const access = path.join(directory, 'access.toml');
  if (rules) await writeFile(access, rules);
  const more = rules ? ['--access', access] : [];
  const server = await startServer(t, { http, flags: ['--users', users, ...more, ...flags] });
  return { ...server, directory, users };
}

export async function fillIn(page, name, password) {
  await page.locator('#user').fill(name);
  await page.locator('#password').fill(password);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

export async function showsLive(page) {
  await until(
    async () => (await page.locator('body').getAttribute('data-phase')) === 'live',
    () => 'the page is live',
  );
}
