/** Workers in TypeScript, written against the package: what the SDK promises, and what becomes of what they do wrong. */
import { join } from 'node:path';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, test as controllerTest, type TestController } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

const fixtures = join(findPackageRoot(), 'test', 'fixtures');

/** A node with the libraries of the tests. */
const test = controllerTest.extend<{ controller: TestController }>({
  controller: async ({ startController }, use) => {
    await use(await startController({ libraryDirs: [join(fixtures, 'libraries')] }));
  },
});

async function launch(db: TestDatabase, name: string, arg: string | null = null): Promise<bigint> {
  return db.value<bigint>('SELECT bgw_launch($1, $2)', [name, arg]);
}

/** What the worker has said so far, each line parsed. */
async function said(db: TestDatabase, name: string): Promise<unknown[]> {
  const { rows } = await db.query(`SELECT message FROM bgw_log WHERE name = $1 AND severity = 'LOG' ORDER BY id`, [
    name,
  ]);
  return rows.map(({ message }) => (/^[[{"]/.test(message) ? (JSON.parse(message) as unknown) : message));
}

async function ended(db: TestDatabase, handle: bigint): Promise<Record<string, unknown>> {
  await db.query(`CALL bgw_wait_for_shutdown($1, '20 s')`, [handle]);
  const { rows } = await db.query(
    'SELECT status, exit_code, sqlstate, message FROM bgw_run_history WHERE handle = $1',
    [handle],
  );
  return rows[0] as Record<string, unknown>;
}

test('settings have the types that they were defined with, and follow bgw_set_config', async ({ db, controller }) => {
  const handle = await launch(db, 'probe_settings', '{"n": [1, 2]}');
  const boot = { flag: true, count: 3, ratio: 0.5, word: 'hello', colour: 'red', naptime: 3600 };
  await until(async () => (await said(db, 'probe_settings')).length === 2);
  expect(await said(db, 'probe_settings')).toEqual([{ arg: { n: [1, 2] }, ...boot }, boot]);
  await db.query(`SELECT bgw_set_config('probe.colour', 'GREEN')`);
  await until(async () => (await said(db, 'probe_settings')).length === 3);
  expect((await said(db, 'probe_settings'))[2]).toEqual({ ...boot, colour: 'green' });
  expect(await db.value('SELECT restarts FROM bgw_stat_activity WHERE handle = $1', [handle])).toBe(0);
  expect(controller.observations.some(({ kind }) => kind === 'worker_exited')).toBe(false);
});

test('a transaction commits when its work returns and rolls back when it throws; a nested one is part of it', async ({
  db,
  controller,
}) => {
  await db.query('CREATE TABLE probe (n int)');
  expect(await ended(db, await launch(db, 'probe_transactions'))).toMatchObject({ status: 'done', exit_code: 0 });
  expect(await said(db, 'probe_transactions')).toEqual([{ rows: [{ n: 1 }], processed: 1 }, 'rolled back']);
  expect((await db.query('SELECT n FROM probe')).rows).toEqual([{ n: 1 }, { n: 4 }, { n: 5 }]);
  expect(controller.observations.some(({ kind }) => kind === 'worker_killed')).toBe(false);
});

test('an ERROR in the main loop is logged with its SQLSTATE, and the loop goes on', async ({ db, controller }) => {
  await launch(db, 'probe_errors');
  await until(async () => (await said(db, 'probe_errors')).includes('went on'));
  const { rows } = await db.query(`SELECT severity, sqlstate, message FROM bgw_log WHERE severity = 'ERROR'`);
  expect(rows).toEqual([{ severity: 'ERROR', sqlstate: '22012', message: 'division by zero' }]);
  expect(controller.observations.some(({ kind }) => kind === 'worker_exited')).toBe(false);
});

test('a worker without backend_database_connection has no session', async ({ db, controller }) => {
  expect(await ended(db, await launch(db, 'probe_without_session'))).toMatchObject({
    status: 'failed',
    exit_code: 1,
    sqlstate: '55000',
    message: 'worker "probe_without_session" has no database connection',
  });
  expect(controller.observations.length).toBeGreaterThan(0);
});

test('what is thrown ends the worker with exit code 1, after its cleanups', async ({ db, controller }) => {
  expect(await ended(db, await launch(db, 'probe_throwing'))).toMatchObject({
    status: 'failed',
    exit_code: 1,
    message: 'not an Error',
  });
  await until(async () => (await said(db, 'probe_throwing')).includes('cleaned up'));
  expect(await ended(db, await launch(db, 'probe_rejecting'))).toMatchObject({
    exit_code: 1,
    message: 'nobody waits for this',
  });
  expect(controller.observations.some(({ kind }) => kind === 'worker_killed')).toBe(false);
});

test('an exit code of its own is a crash', async ({ db, controller }) => {
  expect(await ended(db, await launch(db, 'probe_crashing'))).toEqual({
    status: 'failed',
    exit_code: 77,
    sqlstate: null,
    message: 'background worker "probe_crashing" exited with exit code 77',
  });
  expect(controller.observations.length).toBeGreaterThan(0);
});

test('what a worker prints is in the log', async ({ db, controller }) => {
  await ended(db, await launch(db, 'probe_printing'));
  await until(async () => (await db.value(`SELECT count(*)::int FROM bgw_log WHERE name = 'probe_printing'`)) === 2);
  const { rows } = await db.query(
    `SELECT severity, message FROM bgw_log WHERE name = 'probe_printing' ORDER BY message DESC`,
  );
  expect(rows).toEqual([
    { severity: 'LOG', message: 'to stdout' },
    { severity: 'WARNING', message: 'to stderr' },
  ]);
  expect(controller.observations.length).toBeGreaterThan(0);
});

test('a worker in a long statement is killed after its grace, and the statement with it (I11)', async ({
  db,
  controller,
}) => {
  const handle = await launch(db, 'probe_stuck');
  const running = `SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT pg_sleep(600)' AND state = 'active'`;
  await until(() => db.value(running));
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  await db.query(`CALL bgw_wait_for_shutdown($1, '20 s')`, [handle]);
  expect(await db.value(running)).toBe(false);
  await controller.saw('worker_killed', { handle: String(handle) });
});

test('bgw_cancel ends what the session of the worker runs', async ({ db, controller }) => {
  const handle = await launch(db, 'probe_stuck');
  await until(() => db.value('SELECT pid IS NOT NULL FROM bgw_stat_activity WHERE handle = $1', [handle]));
  await db.query('SELECT bgw_cancel($1::bigint)', [handle]);
  expect(await ended(db, handle)).toMatchObject({ status: 'cancelled', sqlstate: '57014' });
  expect(controller.observations.some(({ kind }) => kind === 'worker_killed')).toBe(false);
});

test('the latch wakes the main loop, SIGTERM ends it, and the function returns', async ({ db, controller }) => {
  const handle = await launch(db, 'probe_looping');
  await until(async () => (await said(db, 'probe_looping')).length === 1);
  await db.query('SELECT bgw_set_latch($1)', [handle]);
  await until(async () => (await said(db, 'probe_looping')).length === 2);
  const { osPid } = await controller.saw('worker_started', { handle: String(handle) });
  process.kill(osPid ?? 0, 'SIGTERM');
  expect(await ended(db, handle)).toMatchObject({ status: 'done', exit_code: 0 });
  expect(await said(db, 'probe_looping')).toEqual(['round 1', 'round 2', 'ended by itself']);
});

test('the process of a worker knows nothing of the connection but over its channel', async ({
  db,
  startController,
}) => {
  process.env['PGPASSWORD'] = 'a secret';
  await startController({ libraryDirs: [join(fixtures, 'libraries')] });
  await ended(db, await launch(db, 'probe_environment'));
  delete process.env['PGPASSWORD'];
  const [environment, argv] = await said(db, 'probe_environment');
  expect(environment).toEqual([]);
  expect(argv).toEqual([expect.stringMatching(/^bgworker-+$/)]);
});

test('the next worker starts in a process that is there already', async ({ db, controller }) => {
  await controller.saw('worker_exited', { handle: String(await launch(db, 'probe_printing')) });
  const children = async (): Promise<string> =>
    (await import('node:fs/promises')).readFile(`/proc/${process.pid}/task/${process.pid}/children`, 'utf8');
  const spare = await until(async () => (await children()).trim().split(' ').at(-1) || undefined);
  const handle = await launch(db, 'waiter');
  const { osPid } = await controller.saw('worker_started', { handle: String(handle) });
  expect(String(osPid)).toBe(spare);
});

test('a library that cannot be loaded is one clear line, and the others load', async ({ db, startController }) => {
  const controller = await startController({ libraryDirs: [join(fixtures, 'broken'), join(fixtures, 'libraries')] });
  const failed = controller.observations.flatMap((seen) =>
    seen.kind === 'library_failed' ? [`${seen.library}: ${seen.error.message}`] : [],
  );
  expect(failed.toSorted()).toEqual([
    'exits: init ended its process with exit code 3',
    'no_library: module of library "no_library" does not export that library',
    'not_exported: library "not_exported": the function of worker "x" is not exported',
    'throws: init went wrong',
  ]);
  expect(controller.observations.filter(({ kind }) => kind === 'library_loaded')).toHaveLength(4);
  await ended(db, await launch(db, 'probe_printing'));
});

test('a library or function that is not there is an error', async ({ db, startController, controller }) => {
  await expect(startController({ preloadLibraries: ['there_is_none'] })).rejects.toMatchObject({ code: '42704' });
  await expect(startController({ libraryDirs: ['/there/is/none'] })).rejects.toMatchObject({ code: '22023' });
  await db.query(`SELECT bgw_register('lost', library_name => 'probe', function_name => 'nobody')`);
  expect(await ended(db, await launch(db, 'lost'))).toMatchObject({
    sqlstate: '42883',
    message: 'function "nobody" of worker "lost" does not exist',
  });
  expect(controller.observations.some(({ kind }) => kind === 'connection_lost')).toBe(false);
});
