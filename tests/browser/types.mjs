/** Writes the declarations of the npm package from its JSDoc; with `--check`, says whether those that are there agree. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const page = path.join(here, '../../apps/dashboard/page');
const types = path.join(page, 'types');
const options = ['--noEmit', 'false', '--declaration', '--emitDeclarationOnly', '--allowJs', '--strict'];
const target = ['--target', 'es2023', '--lib', 'es2023,dom,dom.iterable', '--module', 'nodenext', '--types', ''];
const files = ['latchbus.js', 'counter.js', 'count.js', 'token.js'].map((file) => path.join(page, file));

function generate(directory) {
  const tsc = path.join(here, 'node_modules/typescript/bin/tsc');
  const place = ['--ignoreConfig', '--rootDir', page, '--outDir', directory];
  execFileSync(process.execPath, [tsc, ...options, ...target, ...place, ...files], { stdio: 'inherit' });
}

const contents = (directory) =>
  readdirSync(directory)
    .sort()
    .map((file) => [file, readFileSync(path.join(directory, file), 'utf8')]);

if (process.argv[2] === '--check') {
  const fresh = mkdtempSync(path.join(tmpdir(), 'latchbus-types-'));
  try {
    generate(fresh);
    if (JSON.stringify(contents(fresh)) !== JSON.stringify(contents(types))) {
      console.error('apps/dashboard/page/types is out of date: npm run types');
      process.exitCode = 1;
    }
  } finally {
    rmSync(fresh, { recursive: true });
  }
} else {
  rmSync(types, { recursive: true, force: true });
  generate(types);
}
