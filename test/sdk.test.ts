/** Workers in TypeScript, written against the package: what the SDK promises, and what becomes of what they do wrong. */
import { readFile } from 'node:fs/promises';
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

test('a worker that takes no notice of SIGTERM is killed after its grace, and its statement with it (I11)', async ({
  db,
  controller,
}) => {
  const handle = await launch(db, 'probe_deaf');
  const running = `SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT pg_sleep(600)' AND state = 'active'`;
  await until(() => db.value(running));
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  await db.query(`CALL bgw_wait_for_shutdown($1, '20 s')`, [handle]);
  expect(await db.value(running)).toBe(false);
  await controller.saw('worker_killed', { handle: String(handle) });
});

test('bgw_cancel ends what the session of the worker runs', async ({ db, controller }) => {
  const handle = await launch(db, 'probe_stuck');
  // As with pg_cancel_backend, a session that runs nothing yet has nothing to cancel.
  await until(() => db.value(`SELECT query ~ 'pg_sleep' FROM bgw_stat_activity WHERE handle = $1`, [handle]));
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
  const children = async (): Promise<string> => readFile(`/proc/${process.pid}/task/${process.pid}/children`, 'utf8');
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
    'early_with_database: worker "early_with_database": cannot request database access if starting at postmaster start',
    'exits: init ended its process with exit code 3',
    'no_library: module of library "no_library" does not export that library',
    'not_exported: library "not_exported": the function of worker "x" is not exported',
    'throws: init went wrong',
  ]);
  expect(controller.observations.filter(({ kind }) => kind === 'library_loaded')).toHaveLength(9);
  await ended(db, await launch(db, 'probe_printing'));
});

test('a library that cannot be loaded is an ERROR in bgw_log', async ({ db, startController }) => {
  const controller = await startController({ libraryDirs: [join(fixtures, 'broken')] });
  await controller.saw('library_failed', { library: 'throws' });
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(handle) });
  const lines = `SELECT severity, message FROM bgw_log WHERE message ~ '^could not load library' ORDER BY message`;
  await until(async () => (await db.query(lines)).rowCount === 5, { what: 'five lines in bgw_log', deadline: 4000 });
  expect((await db.query(lines)).rows.at(-1)).toEqual({
    severity: 'ERROR',
    message: 'could not load library "throws": init went wrong',
  });
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

test('SQL names a library, never a path or a URL', async ({ db, controller }) => {
  for (const name of [
    '../x',
    './probe',
    '/etc/passwd',
    'probe.mjs',
    'file:///x',
    'data:text/javascript,1',
    '',
    'a b',
    'x\ny',
  ]) {
    await expect(
      db.query('SELECT bgw_register($1, library_name => $2, function_name => $3)', ['x', name, 'main']),
      name,
    ).rejects.toMatchObject({ code: '22023', hint: expect.stringContaining('never given as a path') });
  }
  await db.query(`SELECT bgw_register('proto', library_name => 'probe', function_name => '__proto__')`);
  expect(await ended(db, await launch(db, 'proto'))).toMatchObject({ exit_code: 1, sqlstate: '42883' });
  expect(controller.observations.some(({ kind }) => kind === 'connection_lost')).toBe(false);
});

test('an uncaught error is exit code 1, and the worker restarts by its rule, in a new process', async ({
  db,
  controller,
}) => {
  await db.query(`UPDATE bgw.worker SET restart_time = '10 ms' WHERE name = 'probe_throwing'`);
  const handle = await launch(db, 'probe_throwing');
  const started = (): (number | undefined)[] =>
    controller.observations.flatMap((seen) =>
      seen.kind === 'worker_started' && seen.handle === String(handle) ? [seen.osPid] : [],
    );
  await until(() => started().length >= 2, { deadline: 15_000 });
  expect(new Set(started()).size).toBe(started().length);
  expect(await db.value('SELECT last_exit_code FROM bgw_stat_activity WHERE handle = $1', [handle])).toBe(1);
});

test('a worker is an operating system process of its own, with its name as title', async ({ db, controller }) => {
  const pids = new Set<number>();
  for (let i = 0; i < 2; i += 1) {
    const { osPid } = await controller.saw('worker_started', { handle: String(await launch(db, 'waiter')) }, 15_000);
    pids.add(osPid ?? 0);
    await until(
      async () => (await readFile(`/proc/${osPid}/cmdline`, 'utf8')).replaceAll('\0', '').trim() === 'bgworker: waiter',
    );
  }
  expect(pids.size).toBe(2);
  expect(pids.has(process.pid)).toBe(false);
});

test('the session of a worker is the one that bgw_stat_activity shows, and carries its name', async ({
  db,
  controller,
}) => {
  const handle = await launch(db, 'probe_stuck');
  await until(() => db.value(`SELECT query ~ 'pg_sleep' FROM bgw_stat_activity WHERE handle = $1`, [handle]));
  expect(
    (
      await db.query(
        `SELECT application_name, query, pid = (SELECT pid FROM pg_stat_activity WHERE application_name = 'bgworker: probe_stuck'
           AND datname = current_database()) AS same_pid FROM bgw_stat_activity WHERE handle = $1`,
        [handle],
      )
    ).rows,
  ).toEqual([{ application_name: 'bgworker: probe_stuck', query: 'SELECT pg_sleep(600)', same_pid: true }]);
  await db.query('SELECT bgw_cancel($1::bigint)', [handle]);
  await controller.saw('worker_exited', { handle: String(handle) });
});
