/** The main loop, signals, latch and hooks of a TypeScript worker, and what becomes of one that misbehaves. One node serves them all. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { systemClock } from '../src/clock.ts';
import { EventQueue } from '../src/events.ts';
import { forkWorkerProcess } from '../src/hosts/fork.ts';
import { ProcessHost } from '../src/hosts/process-host.ts';
import { workerProcess } from '../src/hosts/worker-process.ts';
import { loadLibraries } from '../src/libraries.ts';
import type { Observation } from '../src/observation.ts';
import { findPackageRoot } from '../src/package-root.ts';
import { nothingLeft, spawnController, startController, type TestController } from './support/controller.ts';
import { createDatabase, type TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

const fixtures = join(findPackageRoot(), 'test', 'fixtures');
const loopDir = join(fixtures, 'loop');

let db: TestDatabase;
let controller: TestController;
/** What takes long by its nature begins here, and is looked at by its test. */
let loaded: Promise<Observation[]>;
let deaf: bigint;

beforeAll(async () => {
  loaded = loadHanging();
  db = await createDatabase();
  controller = await startController(db, { libraryDirs: [loopDir], maxWorkerProcesses: 32 });
  deaf = await launch('deaf');
  await saidSo(deaf, 'hears nothing');
  await db.query('SELECT bgw_terminate($1::bigint)', [deaf]);
});

afterAll(async () => {
  await controller.stop();
  await nothingLeft(db);
  await db.drop();
});

async function launch(name: string, arg: unknown = null): Promise<bigint> {
  return db.value<bigint>('SELECT bgw_launch($1, $2)', [name, JSON.stringify(arg)]);
}

/** What the process has said so far: messages of level LOG, parsed. */
async function said(handle: bigint): Promise<unknown[]> {
  const { rows } = await db.query(
    `SELECT message FROM bgw_log WHERE handle = $1 AND severity = 'LOG' AND message !~ '^background worker' ORDER BY id`,
    [handle],
  );
  return rows.map(({ message }) => (/^[[{"\d]/.test(message) ? (JSON.parse(message) as unknown) : message));
}

async function saidSo(handle: bigint, what: unknown): Promise<void> {
  await until(async () => (await said(handle)).includes(what), { what: `"${String(what)}"` });
}

async function ended(handle: bigint): Promise<Record<string, unknown>> {
  await db.query(`CALL bgw_wait_for_shutdown($1, '20 s')`, [handle]);
  const { rows } = await db.query(
    'SELECT status, exit_code, sqlstate, message FROM bgw_run_history WHERE handle = $1',
    [handle],
  );
  return rows[0] as Record<string, unknown>;
}

/** Whether the worker's session runs a statement like this. */
async function running(handle: bigint, query: string): Promise<void> {
  await until(() =>
    db.value(
      `SELECT true FROM bgw_stat_activity AS worker JOIN pg_stat_activity AS session USING (pid)
       WHERE handle = $1 AND session.state = 'active' AND session.query ~ $2`,
      [handle, query],
    ),
  );
}

async function osPid(handle: bigint): Promise<number> {
  return (await controller.saw('worker_started', { handle: String(handle) })).osPid ?? 0;
}

test('an ERROR is logged with its fields, and the last of maxErrors in a row is exit code 1', async () => {
  const handle = await launch('failing', 3);
  expect(await ended(handle)).toEqual({ status: 'failed', exit_code: 1, sqlstate: 'P0002', message: 'no' });
  expect(await said(handle)).toEqual([1, 2, 3, 4, 5]);
  const { rows } = await db.query(
    `SELECT severity, sqlstate, message, detail, hint FROM bgw_log WHERE handle = $1 AND severity = 'ERROR' AND sqlstate = 'P0002' AND message = 'no' ORDER BY id`,
    [handle],
  );
  const line = { severity: 'ERROR', sqlstate: 'P0002', message: 'no', detail: 'a detail', hint: 'a hint' };
  expect(rows).toEqual([line, line, line, line]); // the last one is the end of the worker
  // Turns 1, 3 and 4 failed and were backed off from: at least 50, 50 and 100 ms.
  const times = await db.query(`SELECT logged_at FROM bgw_log WHERE handle = $1 AND message ~ '^[35]$' ORDER BY id`, [
    handle,
  ]);
  expect(times.rows[1].logged_at - times.rows[0].logged_at).toBeGreaterThanOrEqual(140);
});

test('a FATAL in the main loop is exit code 1', async () => {
  const handle = await launch('sleeping');
  await running(handle, 'pg_sleep');
  await db.query('SELECT pg_terminate_backend(pid) FROM bgw_stat_activity WHERE handle = $1', [handle]);
  expect(await ended(handle)).toMatchObject({ status: 'failed', exit_code: 1, sqlstate: '57P01' });
});

test('a connection to somewhere else that fails is an ERROR; one of its own that is lost ends the worker', async () => {
  const handle = await launch('calling');
  await saidSo(handle, 'went on');
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  const cutOff = await launch('cutOff');
  await running(cutOff, 'pg_sleep');
  await db.query('SELECT bgw_set_latch($1)', [cutOff]);
  expect(await ended(cutOff)).toMatchObject({
    status: 'failed',
    exit_code: 1,
    message: 'Connection terminated unexpectedly',
  });
  // Its backend, which did not notice, has been ended.
  expect(
    await db.value(
      `SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND query ~ '^SELECT pg_sleep.600'`,
    ),
  ).toBe(0);
});

test('a FATAL of the worker itself is exit code 1 at once', async () => {
  const handle = await launch('fatal');
  expect(await ended(handle)).toEqual({ status: 'failed', exit_code: 1, sqlstate: '58030', message: 'no disk' });
});

test('SIGTERM cancels the statement, the loop returns, and the worker can finish: exit code 0', async () => {
  const handle = await launch('sleeping');
  await running(handle, 'pg_sleep');
  process.kill(await osPid(handle), 'SIGTERM');
  expect(await ended(handle)).toMatchObject({ status: 'done', exit_code: 0 });
  expect(await said(handle)).toEqual(['after the loop', [{ one: 1 }]]);
  expect(
    await db.value(
      `SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND query ~ '^SELECT pg_sleep.600'`,
    ),
  ).toBe(0);
});

test('bgw_cancel ends the turn with 57014, and the loop goes on', async () => {
  const handle = await launch('sleeping');
  await running(handle, 'pg_sleep');
  await db.query('SELECT bgw_cancel($1::bigint)', [handle]);
  await until(() => db.value(`SELECT true FROM bgw_log WHERE handle = $1 AND sqlstate = '57014'`, [handle]));
  await running(handle, 'pg_sleep');
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  expect(await ended(handle)).toMatchObject({ status: 'cancelled', sqlstate: '57P01' });
  expect(controller.observations.some((seen) => seen.kind === 'worker_killed' && seen.handle === String(handle))).toBe(
    false,
  );
});

test('a handler for SIGTERM lets the turn end', async () => {
  const handle = await launch('finishing');
  await running(handle, 'pg_sleep');
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  expect(await ended(handle)).toMatchObject({ status: 'cancelled' });
  expect((await said(handle)).slice(-2)).toEqual(['asked', 'finished']);
});

test('signals are kept until the worker unblocks them, and a wait says why it ended', async () => {
  const handle = await launch('blocked');
  await saidSo(handle, 'blocked');
  await db.query(`SELECT bgw_signal($1::bigint, 'SIGHUP'), bgw_signal($1::bigint, 'SIGUSR1')`, [handle]);
  await ended(handle);
  expect(await said(handle)).toEqual([
    'blocked',
    'before',
    'SIGHUP',
    'SIGUSR1',
    'after',
    { latchSet: true, timeout: false, postmasterDeath: false },
    { latchSet: false, timeout: true, postmasterDeath: false },
  ]);
});

test('check, assign and show hooks: a value that is refused at a reload is a WARNING, and the old one stays', async () => {
  const handle = await launch('settings');
  const set = async (port: number): Promise<unknown> => db.query(`SELECT bgw_set_config('loop.port', $1)`, [port]);
  const count = async (n: number): Promise<unknown> => until(async () => (await said(handle)).length === n);
  await count(1);
  await set(1);
  await count(2);
  await set(13);
  await count(3);
  await set(15);
  await count(4);
  await set(11);
  await count(5);
  await set(66);
  await count(6);
  await set(100);
  await count(7);
  expect(await said(handle)).toEqual([
    { value: 80, shown: 'port 80', assigned: [80] },
    { value: 2, shown: 'port 2', assigned: [80, 2] },
    { value: 2, shown: 'port 2', assigned: [80, 2] },
    { value: 2, shown: 'port 2', assigned: [80, 2] },
    { value: 2, shown: 'port 2', assigned: [80, 2] },
    { value: 66, shown: 'port 66', assigned: [80, 2, 66] },
    { value: 100, shown: 'port 100', assigned: [80, 2, 66, 100] },
  ]);
  const { rows } = await db.query(
    `SELECT sqlstate, message, detail, hint FROM bgw_log WHERE handle = $1 AND severity = 'WARNING' ORDER BY id`,
    [handle],
  );
  expect(rows).toEqual([
    {
      sqlstate: '22023',
      message: 'invalid value for parameter "loop.port": "13"',
      detail: '13 is unlucky',
      hint: null,
    },
    { sqlstate: '22023', message: 'port 15 is odd', detail: 'It is.', hint: 'Add one.' },
    {
      sqlstate: '22023',
      message: 'invalid value for parameter "loop.port": "11"',
      detail: 'The check returned a value of type string in place of number.',
      hint: null,
    },
    { sqlstate: null, message: '66 went wrong', detail: null, hint: null },
  ]);
  // A worker that starts with a refused value has the boot value.
  await set(15);
  const other = await launch('settings');
  await until(async () => (await said(other)).length === 1);
  expect(await said(other)).toEqual([{ value: 80, shown: 'port 80', assigned: [80] }]);
  await db.query(`SELECT bgw_terminate('settings'), bgw_reset_config('loop.port')`);
});

test('of a value that a check has put in its place, show says what is used', async () => {
  const handle = await launch('rounded');
  const seen = ['2s', '2800ms', '3s'].map((shown, turn) => [shown, turn] as const);
  for (const [value, turn] of seen) {
    if (turn > 0) await db.query(`SELECT bgw_set_config('loop.pause', $1)`, [value]);
    await until(async () => (await said(handle)).length === turn + 1);
  }
  expect(await said(handle)).toEqual([
    [2000, '2s'],
    [3000, '3000'],
    [3000, '3s'],
  ]);
  await db.query(`SELECT bgw_terminate('rounded'), bgw_reset_config('loop.pause')`);
});

test('a prefix that a library reserves is reserved for the owner of its settings', async () => {
  expect(
    (await db.query(`SELECT prefix, owner::regrole = current_user::regrole AS mine FROM bgw.reserved_prefix`)).rows,
  ).toEqual([{ prefix: 'loop', mine: true }]);
});

test('settings of a reload are taken over between two turns', async () => {
  const locker = await db.client();
  await locker.query('SELECT pg_advisory_lock(1)');
  const handle = await launch('steady');
  await running(handle, 'pg_advisory_xact_lock');
  await db.query(`SELECT bgw_set_config('loop.port', '90')`);
  await controller.saw('worker_signalled', { handle: String(handle), signal: 'SIGHUP' });
  await locker.query('SELECT pg_advisory_unlock(1)');
  await until(async () => (await said(handle)).length === 2);
  expect(await said(handle)).toEqual([
    [80, 80],
    [90, 90],
  ]);
  await db.query(`SELECT bgw_terminate('steady'), bgw_reset_config('loop.port')`);
});

test('a channel sets the latch, with its payload; after a loss it is listened to again, and the latch is set once', async () => {
  const handle = await launch('listening');
  await saidSo(handle, 'listens');
  const notify = async (payload: string): Promise<unknown> =>
    db.query(`SELECT pg_notify('loop "channel', $1)`, [payload]);
  await notify('one');
  await saidSo(handle, 'woken');
  await db.query('SELECT pg_terminate_backend(pid) FROM bgw_stat_activity WHERE handle = $1', [handle]);
  await until(async () => (await said(handle)).length === 4);
  await notify('two');
  await until(async () => (await said(handle)).length === 6);
  expect(await said(handle)).toEqual(['listens', 'heard one', 'woken', 'woken', 'heard two', 'woken']);
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  await ended(handle);
});

test('one call sets name, title, activity, signals and cleanup; cleanups run, whatever one of them does', async () => {
  const handle = await launch('settingUp');
  await until(() => db.value(`SELECT true FROM pg_stat_activity WHERE application_name = 'my application'`));
  const pid = await osPid(handle);
  expect((await readFile(`/proc/${pid}/cmdline`, 'utf8')).replaceAll('\0', '').trim()).toBe('my title');
  const activity = `SELECT state || ': ' || query FROM bgw.activity WHERE process_id = $1`;
  await until(async () => (await db.value(activity, [handle])) === 'active: my activity');
  await db.query('SELECT bgw_set_latch($1)', [handle]);
  await until(async () => (await db.value(activity, [handle])) === 'idle: my activity', { what: 'idle' });
  process.kill(pid, 'SIGTERM');
  expect(await ended(handle)).toMatchObject({ status: 'failed', exit_code: 1, message: 'in the end' });
  expect(await said(handle)).toEqual(['SIGUSR1', 'exit 3', 'exit 1']);
  const { rows } = await db.query(`SELECT message, hint FROM bgw_log WHERE handle = $1 AND severity = 'WARNING'`, [
    handle,
  ]);
  expect(rows).toEqual([
    { message: 'a cleanup did not end within 2 s', hint: null },
    { message: 'exit 2 went wrong', hint: 'Mend it.' },
  ]);
});

test('what a worker does wrong is one status, its session is given back, and the others go on', async () => {
  await db.query('CREATE TABLE leaked (n int)');
  const other = await launch('listening');
  await saidSo(other, 'listens');
  const failed = { status: 'failed', exit_code: 1, sqlstate: null };
  const notAnError = 'what was thrown is not an error: ';
  const cases: [string, unknown, Record<string, unknown>][] = [
    ['throwing', 'undefined', { ...failed, message: `${notAnError}undefined` }],
    ['throwing', 'null', { ...failed, message: `${notAnError}null` }],
    ['throwing', 'number', { ...failed, message: `${notAnError}42` }],
    ['throwing', 'getter', { ...failed, message: 'what was thrown is not an error, and cannot be read' }],
    ['rejecting', null, { ...failed, message: `${notAnError}undefined` }],
    ['exiting', null, { ...failed, exit_code: 77, message: 'background worker "exiting" exited with exit code 77' }],
    [
      'killed',
      null,
      { ...failed, exit_code: null, message: 'background worker "killed" was terminated by signal SIGKILL' },
    ],
    ['failingTwice', null, { ...failed, message: 'the first error' }],
    ['leaking', null, { status: 'done', exit_code: 0, sqlstate: null, message: null }],
  ];
  const handles: bigint[] = [];
  for (const [name, arg] of cases) handles.push(await launch(name, arg));
  const ends: unknown[] = [];
  for (const handle of handles) ends.push(await ended(handle));
  expect(ends).toEqual(cases.map(([, , want]) => want));
  expect(await db.value('SELECT count(*)::int FROM leaked')).toBe(0);
  expect(
    await db.value(
      `SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ '^bgworker: (rej|exi|kil|leak)'`,
    ),
  ).toBe(0);
  expect(await db.value(`SELECT status FROM bgw_stat_activity WHERE handle = $1`, [other])).toBe('started');
  await db.query('SELECT bgw_terminate($1::bigint)', [other]);
  await ended(other);
});

test('a worker that returns while its transaction is open is warned of it, and its statement ends with it', async () => {
  const handle = await launch('leakingStatement');
  await running(handle, 'pg_sleep');
  await db.query('SELECT bgw_set_latch($1)', [handle]);
  expect(await ended(handle)).toMatchObject({ status: 'done', exit_code: 0 });
  expect(await said(handle)).toEqual([[{ two: 2 }]]);
  const { rows } = await db.query(`SELECT sqlstate, message FROM bgw_log WHERE handle = $1 AND severity = 'WARNING'`, [
    handle,
  ]);
  expect(rows).toEqual([
    { sqlstate: '25000', message: 'background worker "leakingStatement" returned while a transaction was open' },
  ]);
  expect(
    await db.value(
      `SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND query ~ '^SELECT pg_sleep.600'`,
    ),
  ).toBe(0);
});

test('a worker that prints 100 MB is cut short', async () => {
  const handle = await launch('printing');
  expect(await ended(handle)).toMatchObject({ status: 'done', exit_code: 0 });
  await until(() => db.value(`SELECT true FROM bgw_log WHERE handle = $1 AND message ~ 'left out$'`, [handle]));
  expect(await db.value('SELECT count(*)::int FROM bgw_log WHERE handle = $1', [handle])).toBeLessThan(20_000);
});

test('a library that hangs while it is loaded, or refuses its own boot value, is not loaded', async () => {
  const failed = (await loaded).flatMap((seen) =>
    seen.kind === 'library_failed' ? [`${seen.library}: ${seen.error.message}`] : [],
  );
  expect(failed).toEqual(
    expect.arrayContaining([
      'blocked: init did not return within 4 s',
      'endless: init did not return within 4 s',
      'refused: port is taken',
    ]),
  );
});

async function loadHanging(): Promise<Observation[]> {
  const observations: Observation[] = [];
  await loadLibraries({
    directories: [join(fixtures, 'hanging')],
    preload: [],
    settings: [],
    observe: (observation) => observations.push(observation),
    initWithin: 4000,
  });
  return observations;
}

test('a worker whose library hangs in start-up is killed', async () => {
  const observations: Observation[] = [];
  const host = new ProcessHost(
    {
      kind: 'start',
      handle: '1',
      run_id: '1',
      name: 'late',
      database: db.name,
      main_arg: null,
      command: null,
      mode: 'session',
      library_name: 'endless',
      function_name: 'main',
      flags: [],
      naptime: null,
      timeout: null,
      settings: [],
    },
    {
      library: new URL('fixtures/hanging/endless.mjs', import.meta.url).href,
      process: workerProcess(forkWorkerProcess()),
      connection: {},
    },
    {
      clock: systemClock,
      events: new EventQueue(systemClock, () => undefined),
      observe: (observation) => observations.push(observation),
      server: {
        cancelBackend: async () => false,
        terminateBackend: async () => false,
        registerSession: async () => '',
      },
      grace: 5000,
      startWithin: 500,
    },
  );
  expect(await host.ended).toMatchObject({
    exit_code: null,
    error: { code: 'WK113', message: 'background worker "late" did not start within 0.5 s' },
  });
});

test('a worker that never gives control back is killed after its grace', async () => {
  expect(await ended(deaf)).toMatchObject({ status: 'cancelled', exit_code: null, sqlstate: '57P01' });
  await controller.saw('worker_killed', { handle: String(deaf) });
});

test('workers of a controller that is killed are gone within a second, and their sessions, also in a long statement', async () => {
  const own = await createDatabase();
  try {
    const process_ = await spawnController(own, ['--library-dir', loopDir]);
    await own.query(`SELECT bgw_launch('sleeping'), bgw_launch('listening')`);
    const sessions = `SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = $1 AND application_name ~ '^bgworker: '`;
    const busy = `SELECT count(*) = 2 FROM pg_stat_activity WHERE datname = $1 AND query ~ '^(SELECT pg_sleep.600|LISTEN)' AND application_name ~ '^bgworker: '`;
    await until(() => own.value(busy, [own.name]));
    const { rows } = await own.query(`SELECT os_pid FROM bgw_stat_activity WHERE os_pid IS NOT NULL`);
    expect(rows).toHaveLength(2);
    await process_.end('SIGKILL');
    const killedAt = performance.now();
    await until(async () => (await own.value(sessions, [own.name])) === null, { deadline: 5000 });
    await until(() => rows.every(({ os_pid: pid }) => !isAlive(pid)), { deadline: 5000 });
    expect(performance.now() - killedAt).toBeLessThan(2500); // a second, on a busy machine
  } finally {
    await own.drop();
  }
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
