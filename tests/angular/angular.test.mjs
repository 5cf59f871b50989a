/** The Angular applications of docs/front-ends.md, as they stand there: built, served by `--pages` and from another port. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  mosquittoPub,
  mosquittoSub,
  openPage,
  showsSoon,
  startServer,
  temporaryDirectory,
  until,
  useBrowser,
} from '../browser/support.mjs';

const { profile } = useBrowser();
const here = path.dirname(fileURLToPath(import.meta.url));
const app = path.join(here, 'src/app');
const dist = path.join(here, 'dist');
const ng = path.join(here, 'node_modules/@angular/cli/bin/ng.js');

before(async () => {
  const document = await readFile(path.join(here, '../../docs/front-ends.md'), 'utf8');
  const recipes = document.matchAll(/<!-- recipe: angular\/(\S+) -->\n```\w+\n(.*?)```/gs);
  await rm(app, { recursive: true, force: true });
  await mkdir(app, { recursive: true });
  for (const [, name, source] of recipes) await writeFile(path.join(app, name), source);
  // From another port the address says where the hub is, which only a test knows at run time.
  const environment = "export const url = new URLSearchParams(location.search).get('hub') ?? '';\n";
  await writeFile(path.join(app, 'environment.ts'), environment);
  execFileSync(process.execPath, [ng, 'build', '--output-path', dist], { cwd: here, stdio: ['ignore', 'ignore', 'inherit'] });
});

/** What the page shows: the counts, and what the meter is drawn with. */
function shown(page) {
  return page.evaluate(() => {
    const text = (id) => Number(document.getElementById(id)?.textContent ?? NaN);
    const bar = (name) => document.querySelector(`.meter .${name}`);
    const color = (name) => bar(name) && getComputedStyle(bar(name)).backgroundColor;
    const width = (name) => Number.parseFloat(bar(name)?.style.width ?? 'NaN');
    return { red: text('red'), blue: text('blue'), share: width('red') + width('blue'), colors: [color('red'), color('blue')] };
  });
}

async function shows(page, expected) {
  let last;
  await until(
    async () => {
      last = await shown(page);
      return last.red === expected.red && last.blue === expected.blue;
    },
    () => `expected ${JSON.stringify(expected)}, the page shows ${JSON.stringify(last)}`,
  );
  return last;
}

const click = (page, name) => page.getByRole('button', { name }).click();

test('the tutorial, served by --pages: equal with the dashboard and mosquitto_sub, over a restart', async (t) => {
  const dataDir = await temporaryDirectory(t);
  const flags = ['--pages', dist];
  const server = await startServer(t, { dataDir, flags });
  const sub = mosquittoSub(t, server, 'clicks/main/values');
  const context = await profile(t);
  const page = await openPage(context, server.url);
  const dashboard = await openPage(context, `${server.url}/latchbus/`);
  await shows(page, { red: 0, blue: 0 });
  const equal = async (red, blue) => {
    await sub.line(`clicks/main/values {"red":${red},"blue":${blue}}`);
    await showsSoon(dashboard, { red, blue });
    return shows(page, { red, blue });
  };
  await click(page, 'Red');
  await equal(1, 0);
  await click(page, 'Blue');
  await equal(1, 1);
  await mosquittoPub(server, 'clicks/main/kiosk-1/press', '-m', 'red 2');
  const { share, colors } = await equal(3, 1);
  assert.equal(share, 100);
  // The policy lets the build's late style sheet pass.
  assert.deepEqual(colors, ['rgb(204, 0, 0)', 'rgb(0, 0, 204)']);
  // Who comes late has the value at once.
  await shows(await openPage(context, server.url), { red: 3, blue: 1 });
  assert.deepEqual([...page.complaints, ...dashboard.complaints], []);

  // An orderly stop, after which Socket.IO's client does not come back by itself.
  await server.stop();
  const next = await startServer(t, { dataDir, flags, http: server.http });
  await mosquittoPub(next, 'clicks/main/kiosk-1/press', '-m', 'blue 4');
  await shows(page, { red: 3, blue: 5 });
  await click(page, 'Blue');
  await shows(page, { red: 3, blue: 6 });
});

test('the recipe: toSignal and the async pipe over topics, on a route of the application', async (t) => {
  const dataDir = await temporaryDirectory(t);
  const flags = ['--pages', dist];
  const server = await startServer(t, { dataDir, flags });
  await mosquittoPub(server, 'clicks/main/kiosk-1/press', '-m', 'blue 3');
  const page = await openPage(await profile(t), `${server.url}/module`);
  await shows(page, { red: 0, blue: 3 });
  await click(page, 'Red');
  await shows(page, { red: 1, blue: 3 });
  assert.deepEqual(page.complaints, []);
  await server.kill();
  await page.locator('main:not([data-phase="live"])').waitFor();
  const next = await startServer(t, { dataDir, flags, http: server.http });
  await mosquittoPub(next, 'clicks/main/kiosk-1/press', '-m', 'red');
  await shows(page, { red: 2, blue: 3 });
});

test('the tutorial from ng serve on another port, with allow_origins and without', async (t) => {
  const free = net.createServer();
  await new Promise((resolve) => free.listen(0, '127.0.0.1', resolve));
  const { port } = free.address();
  await new Promise((resolve) => free.close(resolve));
  const serve = spawn(process.execPath, [ng, 'serve', '--host', '127.0.0.1', '--port', `${port}`, '--no-hmr'], {
    cwd: here,
    stdio: 'ignore',
  });
  const ended = new Promise((resolve) => serve.once('exit', resolve));
  t.after(async () => {
    serve.kill();
    await ended;
  });
  const url = `http://127.0.0.1:${port}`;
  const answers = () => fetch(url).then(({ ok }) => ok, () => false);
  await until(answers, () => 'ng serve');

  const hub = await startServer(t, { flags: ['--allow-origins', url] });
  const page = await openPage(await profile(t), `${url}/?hub=${hub.url}`);
  await click(page, 'Red');
  await shows(page, { red: 1, blue: 0 });
  assert.deepEqual(page.complaints, []);

  const strict = await startServer(t);
  const refused = await openPage(await profile(t), `${url}/?hub=${strict.url}`);
  await until(
    () => refused.complaints.some((line) => line.includes(`--allow-origins ${url}`)),
    () => `the missing flag on the console:\n${refused.complaints.join('\n')}`,
  );
});
