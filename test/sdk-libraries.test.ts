/** Libraries that can be written by mistake, or by habit. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { loadLibraries } from '../src/libraries.ts';
import type { Observation } from '../src/observation.ts';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, spawnController, test } from './support/controller.ts';
import { until } from './support/until.ts';

const root = findPackageRoot();
function createDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'bgw-libraries-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  return directory;
}

/** From Node.js 20.19 and 22.12 on CommonJS can import the package. */
const canRequire = 'require_module' in process.features;

/** The library of README.md in a project as `npm init` makes it. */
test.skipIf(!canRequire)('a library that was compiled to CommonJS is loaded, and its worker runs', async ({ db }) => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  const source = /^```ts\n(?<source>[^]*?)^```/m.exec(readme)?.groups?.['source'] ?? '';
  const options = /npx tsc (?<options>[^`]*)`/.exec(readme)?.groups?.['options'] ?? '';
  const project = createDirectory();
  mkdirSync(join(project, 'workers'));
  mkdirSync(join(project, 'node_modules'));
  symlinkSync(root, join(project, 'node_modules', 'pg-bgworker'));
  writeFileSync(join(project, 'package.json'), '{ "type": "commonjs" }');
  writeFileSync(join(project, 'workers', 'old_transactions.ts'), source);
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const compiler = spawnSync(process.execPath, [tsc, ...options.split(' ')], { cwd: project, encoding: 'utf8' });
  expect(compiler).toMatchObject({ status: 0, stdout: '' });
  expect(readFileSync(join(project, 'workers', 'old_transactions.js'), 'utf8')).toContain('require(');

  const node = await spawnController(db, ['--library-dir', join(project, 'workers')]);
  expect(node.lines.filter(({ msg }) => /could not load/.test(String(msg)))).toEqual([]);
  const handle = await db.value<bigint>(`SELECT bgw_launch('old_transactions')`);
  await until(() => db.value(`SELECT true FROM bgw_stat_activity WHERE handle = $1 AND state = 'idle'`, [handle]));
  await node.end('SIGTERM');
});

test('an init that is asynchronous is an error, before and after it has rejected', async () => {
  const directory = createDirectory();
  const bodies = { waits: 'await new Promise((done) => setTimeout(done, 1))', rejects: `throw new Error('lost')` };
  for (const [name, body] of Object.entries(bodies)) {
    writeFileSync(
      join(directory, `${name}.mjs`),
      `export default { name: '${name}', init: async () => { ${body}; } };`,
    );
  }
  const observations: Observation[] = [];
  const observe = (seen: Observation): number => observations.push(seen);
  await loadLibraries({ directories: [directory], preload: [], settings: [], observe });
  const failed = observations.filter(({ kind }) => kind === 'library_failed');
  expect(failed).toHaveLength(2);
  for (const name of Object.keys(bodies)) {
    const message = `init of library "${name}" returned a promise; it has to be synchronous`;
    expect(failed).toContainEqual(
      expect.objectContaining({ library: name, error: expect.objectContaining({ code: 'WK113', message }) }),
    );
  }
});
