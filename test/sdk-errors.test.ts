/** Where an error of a library comes from is said in its CONTEXT. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { loadLibraries } from '../src/libraries.ts';
import type { Observation } from '../src/observation.ts';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, test as controllerTest, type TestController } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';

const fixtures = join(findPackageRoot(), 'test', 'fixtures', 'errors');
const source = readFileSync(join(fixtures, 'failing.mjs'), 'utf8').split('\n');

const test = controllerTest.extend<{ controller: TestController }>({
  controller: async ({ startController }, use) => {
    await use(await startController({ libraryDirs: [fixtures] }));
  },
});

/** The place of the line with that comment, in a line of its own. */
function placeOf(comment: string): RegExp {
  const line = source.findIndex((text) => text.endsWith(`// ${comment}`)) + 1;
  return new RegExp(`^(function \\S+ at )?failing\\.mjs:${line}:\\d+$`, 'm');
}

async function failed(db: TestDatabase, name: string): Promise<{ message: string; context: string | null }> {
  const handle = await db.value<bigint>('SELECT bgw_launch($1)', [name]);
  await db.query(`CALL bgw_wait_for_shutdown($1, '20 s')`, [handle]);
  const { rows } = await db.query('SELECT message, context FROM bgw_run_history WHERE handle = $1', [handle]);
  return rows[0] as { message: string; context: string | null };
}

test('an error says where it was thrown, and from where that was called', async ({ db, controller }) => {
  const { message, context } = await failed(db, 'nested');
  expect(message).toBe(`Cannot read properties of undefined (reading 'reached')`);
  const [inner, outer, ...more] = String(context).split('\n');
  expect(inner).toMatch(placeOf('inner'));
  expect(inner).toContain('function reach at');
  expect(outer).toMatch(placeOf('outer'));
  expect(more).toEqual([]);
  const cleanup = `SELECT context FROM bgw_log WHERE name = 'nested' AND message = 'not cleaned up'`;
  expect(await db.value<string>(cleanup)).toMatch(placeOf('in a cleanup'));
  expect(controller.observations.some(({ kind }) => kind === 'worker_killed')).toBe(false);
});

test('an error of the server keeps its own context, and says which statement of the worker it was', async ({
  db,
  controller,
}) => {
  const { message, context } = await failed(db, 'statement');
  expect(message).toBe('division by zero');
  const lines = String(context).split('\n');
  expect(lines.slice(0, 2)).toEqual([
    expect.stringContaining('SQL statement'),
    expect.stringContaining('PL/pgSQL function'),
  ]);
  expect(lines[2]).toMatch(placeOf('in a statement'));
  expect(controller.observations.some(({ kind }) => kind === 'worker_killed')).toBe(false);
});

test('an error of a turn that is not the last says it in the log', async ({ db, controller }) => {
  expect((await failed(db, 'turns')).context).toMatch(placeOf('in a turn'));
  const logged = `SELECT context FROM bgw_log WHERE name = 'turns' AND severity = 'ERROR' ORDER BY id LIMIT 1`;
  expect(await db.value<string>(logged)).toMatch(placeOf('in a turn'));
  expect(controller.observations.some(({ kind }) => kind === 'worker_killed')).toBe(false);
});

test('a library that cannot be loaded says in which line', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'bgw-errors-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const modules = {
    'parsed.mjs': 'export const a = 1;\n\nexport const = 5;\n',
    'required.js': 'const a = 1;\nconst = 5;\n',
    'linked.mjs': '\n\nimport { nothing } from "node:path";\n',
    'thrown.mjs': 'export default { name: "thrown", init: () => {\n  undefined.defined();\n} };\n',
  };
  for (const [file, text] of Object.entries(modules)) writeFileSync(join(directory, file), text);
  const contexts: Record<string, string | undefined> = {};
  const observe = (seen: Observation): void => {
    if (seen.kind === 'library_failed') contexts[seen.library] = seen.error.context;
  };
  await loadLibraries({ directories: [directory], preload: [], settings: [], observe });
  expect(contexts).toEqual({
    parsed: 'parsed.mjs:3',
    required: 'required.js:2',
    linked: 'linked.mjs:3',
    thrown: expect.stringMatching(/^(function \S+ at )?thrown\.mjs:2:13$/),
  });
});
