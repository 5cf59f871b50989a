/** The applications of docs/front-ends.md, as they stand there: built, served by `--pages`, and used in a browser. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { compile as compileSvelte } from 'svelte/compiler';
import { compileScript, parse } from 'vue/compiler-sfc';
import { mosquittoPub, openPage, startServer, temporaryDirectory, until, useBrowser } from './support.mjs';

const { profile } = useBrowser();
const here = path.dirname(fileURLToPath(import.meta.url));
const document = await readFile(path.join(here, '../../docs/front-ends.md'), 'utf8');
const recipes = new Map(
  [...document.matchAll(/<!-- recipe: (\S+) -->\n```\w+\n(.*?)```/gs)].map(([, name, source]) => [name, source]),
);

const compilers = {
  name: 'compilers',
  setup(bundle) {
    bundle.onLoad({ filter: /\.svelte$/ }, async ({ path: file }) => {
      const { js, warnings } = compileSvelte(await readFile(file, 'utf8'), { filename: file, generate: 'client' });
      assert.deepEqual(warnings, []);
      return { contents: js.code };
    });
    bundle.onLoad({ filter: /\.vue$/ }, async ({ path: file }) => {
      const { descriptor, errors } = parse(await readFile(file, 'utf8'), { filename: file });
      assert.deepEqual(errors, []);
      return { contents: compileScript(descriptor, { id: 'score', inlineTemplate: true }).content };
    });
  },
};

/** Writes the files of a recipe, beside the packages that they import. */
async function written(t, framework) {
  const directory = await temporaryDirectory(t);
  await symlink(path.join(here, 'node_modules'), path.join(directory, 'node_modules'));
  for (const [name, source] of recipes) {
    if (name === 'bus.js' || name.startsWith(`${framework}/`)) {
      await writeFile(path.join(directory, path.basename(name)), source);
    }
  }
  return directory;
}

/** A front end as a build leaves it. */
async function built(t, framework) {
  const directory = await written(t, framework);
  const dist = path.join(directory, 'dist');
  await mkdir(dist);
  const entry = [...recipes.keys()].find((name) => name.startsWith(`${framework}/main.`));
  await build({
    entryPoints: [path.join(directory, path.basename(entry))],
    bundle: true,
    format: 'esm',
    minify: true,
    outfile: path.join(dist, 'main.js'),
    conditions: ['browser', 'production'],
    define: { 'process.env.NODE_ENV': '"production"', __VUE_OPTIONS_API__: 'false', __VUE_PROD_DEVTOOLS__: 'false' },
    jsx: 'automatic',
    plugins: [compilers],
    logLevel: 'error',
  });
  const html = '<!doctype html><title>Score</title><link rel="icon" href="data:,"><div id="app"></div><script type="module" src="/main.js"></script>';
  await writeFile(path.join(dist, 'index.html'), html);
  return dist;
}

const shows = (page, expected) => {
  const seen = () =>
    page.evaluate(() => {
      const text = (id) => document.getElementById(id)?.textContent;
      return { phase: document.querySelector('main')?.dataset.phase, red: text('red'), blue: text('blue') };
    });
  let last;
  return until(
    async () => {
      last = await seen();
      return Object.entries(expected).every(([key, value]) => last[key] === value);
    },
    () => `expected ${JSON.stringify(expected)}, the page shows ${JSON.stringify(last)}`,
  );
};

for (const framework of ['react', 'vue', 'svelte']) {
  test(`${framework}: the last value at once, each change, clicks, and all that came while the server was away`, async (t) => {
    const flags = ['--pages', await built(t, framework)];
    const dataDir = await temporaryDirectory(t);
    const server = await startServer(t, { dataDir, flags });
    await mosquittoPub(server, 'clicks/main/kiosk-1/press', '-m', 'blue 3');
    const page = await openPage(await profile(t), server.url);
    await shows(page, { phase: 'live', red: '0', blue: '3' });
    await page.getByRole('button').click();
    await shows(page, { red: '1', blue: '3' });
    await mosquittoPub(server, 'clicks/main/kiosk-1/press', '-m', 'red 2');
    await shows(page, { red: '3', blue: '3' });
    // The policy of `--pages` lets all of it pass.
    assert.deepEqual(page.complaints, []);

    await server.kill();
    await until(
      async () => (await page.locator('main').getAttribute('data-phase')) !== 'live',
      () => 'the connection is lost',
    );
    await page.getByRole('button').click();
    const next = await startServer(t, { dataDir, flags, http: server.http });
    await mosquittoPub(next, 'clicks/main/kiosk-1/press', '-m', 'blue');
    await shows(page, { phase: 'live', red: '4', blue: '4' });
  });
}

/** What `ng serve` and `vite` are to the hub: a page of another origin. */
async function developmentServer(t, hub) {
  const script =
    `import { connect } from '/latchbus.js';\nconst bus = connect('${hub.url}/ws');\n` +
    `bus.state.subscribe(({ phase }) => (document.title = phase));\n` +
    `fetch('${hub.url}/api/v1/topics').then(({ ok }) => (document.body.dataset.fetched = ok), () => {});\n`;
  const module = await readFile(path.join(here, '../../apps/dashboard/page/latchbus.js'));
  const server = http.createServer((request, response) => {
    const [type, body] = {
      '/latchbus.js': ['text/javascript', module],
      '/main.js': ['text/javascript', script],
    }[request.url] ?? ['text/html', '<link rel="icon" href="data:,"><body><script type="module" src="/main.js"></script>'];
    response.writeHead(200, { 'content-type': type }).end(body);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  return `http://127.0.0.1:${server.address().port}`;
}

test('from another port: the console names the flag that is missing, and with it the page works', async (t) => {
  const hub = await startServer(t);
  const url = await developmentServer(t, hub);
  const page = await openPage(await profile(t), url);
  const has = (...words) => page.complaints.some((line) => words.every((word) => line.includes(word)));
  await until(
    () => has('latchbus:', `--allow-origins ${url}`),
    () => `what is missing:\n${page.complaints.join('\n')}`,
  );
  assert.equal(page.complaints.filter((line) => line.startsWith('latchbus:')).length, 1, 'once, not at each attempt');

  const allowed = await startServer(t, { flags: ['--allow-origins', 'http://127.0.0.1:*'] });
  const next = await openPage(await profile(t), await developmentServer(t, allowed));
  await until(
    async () => (await next.title()) === 'live' && (await next.locator('body').getAttribute('data-fetched')) === 'true',
    () => `a page that is live:\n${next.complaints.join('\n')}`,
  );
  assert.deepEqual(next.complaints, []);
});

test('typed payloads: the recipe compiles, and what is wrong does not', async (t) => {
  const directory = await temporaryDirectory(t);
  await symlink(path.join(here, 'node_modules'), path.join(directory, 'node_modules'));
  const wrong = `
import { connect } from 'latchbus';
const bus = connect();
const typed = bus.topic<{ red: number }>('a');
// @ts-expect-error no such member
typed.subscribe(({ value }) => value?.green);
// @ts-expect-error it may be cleared
typed.subscribe(({ value }) => value.red);
typed.subscribe((message) => message.cleared || message.value.red.toFixed());
// @ts-expect-error a number
const text: string | undefined = typed.snapshot()?.value?.red;
// @ts-expect-error frozen
typed.messages().push();
for (const { value } of typed.messages()) value?.red.toFixed();
for (const { value } of typed.last.values()) value?.red.toFixed();
for await (const { value } of typed) value?.red.toFixed();
// Without a type it is any, as in JavaScript.
bus.topic('b').subscribe(({ value }) => value.anything.at.all);
export { text };
`;
  await writeFile(path.join(directory, 'typed.ts'), recipes.get('typed.ts'));
  await writeFile(path.join(directory, 'wrong.ts'), wrong);
  const tsc = path.join(here, 'node_modules/typescript/bin/tsc');
  const target = ['--target', 'es2023', '--lib', 'es2023,dom,dom.iterable,dom.asynciterable', '--module', 'preserve'];
  const options = ['--ignoreConfig', '--noEmit', '--strict', '--moduleResolution', 'bundler', '--types', '', ...target];
  const files = ['typed.ts', 'wrong.ts'].map((file) => path.join(directory, file));
  try {
    execFileSync(process.execPath, [tsc, ...options, ...files], { encoding: 'utf8' });
  } catch (error) {
    assert.fail(error.stdout);
  }
});
