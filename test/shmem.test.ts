/** The flag shmem_access: workers that are threads of one process share segments and locks, and a crash of one is a crash of all. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { findPackageRoot } from '../src/package-root.ts';
import { Locks } from '../src/sdk/locks.ts';
import {
  type ControllerProcess,
  expect,
  nothingLeft,
  spawnController,
  test as controllerTest,
} from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

const libraries = join(findPackageRoot(), 'test', 'fixtures', 'shared-memory');

/** Each test has a node with the workers of these tests, as its users have it: a process. */
const test = controllerTest.extend<{ node: ControllerProcess }>({
  node: [
    async ({ db }, use) => {
      const node = await spawnController(db, ['--library-dir', libraries]);
      await use(node);
      await node.end('SIGTERM');
      await nothingLeft(db);
    },
    { auto: true },
  ],
});

async function launch(db: TestDatabase, name: string, arg: unknown = null): Promise<bigint> {
  return db.value<bigint>('SELECT bgw_launch($1, $2)', [name, JSON.stringify(arg)]);
}

/** Launches, and waits for the line that says it is at work. */
async function start(db: TestDatabase, name: string, line: RegExp, arg: unknown = null): Promise<bigint> {
  const handle = await launch(db, name, arg);
  await saidBy(db, handle, line);
  return handle;
}

async function linesOf(db: TestDatabase, handle: bigint): Promise<string[]> {
  const { rows } = await db.query('SELECT message FROM bgw_log WHERE handle = $1 ORDER BY id', [handle]);
  return rows.map(({ message }) => message as string);
}

function saidBy(db: TestDatabase, handle: bigint, line: RegExp): Promise<string> {
  return until(async () => (await linesOf(db, handle)).find((text) => line.test(text)), {
    what: `a line like ${line} of ${handle}`,
  });
}

async function said(db: TestDatabase, handle: bigint): Promise<unknown[]> {
  return (await linesOf(db, handle)).map((line) => JSON.parse(line) as unknown);
}

async function ended(db: TestDatabase, handle: bigint): Promise<Record<string, unknown>> {
  await db.query(`CALL bgw_wait_for_shutdown($1, '20 s')`, [handle]);
  return lastRun(db, handle);
}

async function lastRun(db: TestDatabase, handle: bigint): Promise<Record<string, unknown>> {
  const { rows } = await db.query(
    'SELECT status, exit_code, sqlstate, message, detail FROM bgw_run_history WHERE handle = $1 ORDER BY run_id DESC LIMIT 1',
    [handle],
  );
  return (rows[0] ?? {}) as Record<string, unknown>;
}

/** One that has ended and that nobody has waited for yet has no command line. */
async function isAlive(osPid: number): Promise<boolean> {
  return (await readFile(`/proc/${osPid}/cmdline`, 'utf8').catch(() => '')) !== '';
}

/** What of a process tells whether it was started again. */
async function attempt(db: TestDatabase, handle: bigint): Promise<Record<string, unknown>> {
  const { rows } = await db.query(
    'SELECT id AS handle, run_id, restarts, status, os_pid FROM bgw.process WHERE id = $1',
    [handle],
  );
  return (rows[0] ?? {}) as Record<string, unknown>;
}

function restarted(db: TestDatabase, handle: bigint, times = 1): Promise<unknown> {
  return until(
    async () => {
      const { restarts, status } = await attempt(db, handle);
      return restarts === times && status === 'started';
    },
    { what: `the restart of ${handle}` },
  );
}

async function osPidOf(db: TestDatabase, handle: bigint): Promise<number> {
  return (await attempt(db, handle))['os_pid'] as number;
}

test('workers of one node are threads of one process and share its memory', async ({ db }) => {
  const [first, second] = [await launch(db, 'shared_adder', 300), await launch(db, 'shared_adder', 300)];
  const keeper = await start(db, 'shared_keeper', /starts/);
  const again = await start(db, 'shared_once', /starts/);
  for (const handle of [first, second]) expect(await ended(db, handle)).toMatchObject({ status: 'done', exit_code: 0 });
  const sums = [...(await said(db, first)), ...(await said(db, second))];
  expect(sums, 'nothing is lost of what is added by Atomics, nor under the lock').toContainEqual({
    atomic: 600,
    sum: '600',
  });
  expect(await said(db, keeper)).toEqual([{ found: false, starts: 1 }]);
  expect(await said(db, again)).toEqual([{ found: true, starts: 2 }]);
  const osPid = await osPidOf(db, keeper);
  expect(await osPidOf(db, again)).toBe(osPid);
  const title = await readFile(`/proc/${osPid}/cmdline`, 'utf8');
  expect(title).toMatch(/^bgworker: shared memory/);
});

test('segments outlive their workers; another size is refused, and names and sizes that cannot be', async ({ db }) => {
  const keeper = await start(db, 'shared_keeper', /starts/);
  await db.query('SELECT bgw_terminate($1::bigint)', [keeper]);
  await ended(db, keeper);
  const handle = await launch(db, 'shared_attacher', [
    ['segment', 'keeper', 8],
    ['segment', 'keeper', 16],
    ['segment', '', 8],
    ['segment', 'empty', 0],
    ['segment', 'huge', Number.MAX_SAFE_INTEGER],
    ['struct', 'wrong', { field: 'Int32Array' }],
    ['lock', 'the lock', 'update'],
    ['lock', 'the lock', 'shared', { timeout: -1 }],
  ]);
  expect(await ended(db, handle)).toMatchObject({ status: 'done' });
  expect(await said(db, handle)).toEqual([
    { buffer: {}, found: true },
    {
      code: '22023',
      message: 'shared memory segment "keeper" has another size',
      detail: 'It has 8 bytes; 16 were requested.',
    },
    { code: '22023', message: 'invalid segment name: ""', detail: 'A name has 1 to 63 bytes.' },
    { code: '22023', message: 'size of shared memory segment "empty" is not a positive number of bytes: 0' },
    {
      code: '53200',
      message: `not enough shared memory for segment "huge" (${Number.MAX_SAFE_INTEGER} bytes requested)`,
    },
    {
      code: '22023',
      message: 'invalid field "field" of a struct in shared memory',
      hint: 'Give a typed array such as Int32Array, or one and its length: [Int32Array, 16].',
    },
    {
      code: '22023',
      message: 'lock "the lock": unrecognized mode "update"',
      hint: 'Available modes: exclusive, shared.',
    },
    {
      code: '22023',
      message: 'lock "the lock": -1 ms is outside the valid range for a timeout (0 .. 2147483647)',
    },
  ]);
});

test('a worker without the flag is told so, and a command cannot have it', async ({ db }) => {
  const handle = await launch(db, 'shared_without_flag', [['segment', 'keeper', 8]]);
  expect(await ended(db, handle)).toMatchObject({ status: 'done' });
  expect(await said(db, handle)).toEqual([
    {
      code: '55000',
      message: 'worker "shared_without_flag" has no access to shared memory',
      hint: 'Register it with the flag "shmem_access".',
    },
  ]);
  const flags = '{backend_database_connection,shmem_access}';
  const refused = {
    code: '22023',
    message: 'worker "sql": a command has no access to shared memory',
    hint: 'The flag "shmem_access" is for the functions of libraries.',
  };
  await expect(db.query(`SELECT bgw_register('sql', 'SELECT 1', flags => '${flags}')`)).rejects.toMatchObject(refused);
  await expect(
    db.query(`INSERT INTO bgw.worker (name, command, flags) VALUES ('sql', 'SELECT 1', '${flags}')`),
  ).rejects.toMatchObject(refused);
});

controllerTest(
  'a lock is granted first come, first served: a waiting exclusive is not overtaken by a later shared',
  () => {
    const locks = new Locks();
    const held: string[] = [];
    const acquire = (as: string, mode: 'exclusive' | 'shared'): (() => void) =>
      locks.acquire('lock', mode, () => void held.push(as));
    const first = acquire('first', 'shared');
    const second = acquire('second', 'shared');
    const third = acquire('third', 'exclusive');
    const fourth = acquire('fourth', 'shared');
    acquire('fifth', 'shared');
    expect(held).toEqual(['first', 'second']);
    first();
    first();
    expect(held).toEqual(['first', 'second']);
    second();
    expect(held).toEqual(['first', 'second', 'third']);
    const sixth = acquire('sixth', 'exclusive');
    acquire('seventh', 'shared');
    third();
    expect(held).toEqual(['first', 'second', 'third', 'fourth', 'fifth']);
    sixth(); // gives its place in the queue back: the one behind it shares with the holders
    expect(held.at(-1)).toBe('seventh');
    fourth();
    acquire('another lock', 'exclusive');
    expect(held.at(-1)).toBe('seventh');
  },
);

test('locks exclude and share between workers, and go on to the next when a holder ends or throws', async ({ db }) => {
  const locker = (as: string, mode: string, line: RegExp): Promise<bigint> =>
    start(db, 'shared_locker', line, { as, mode });
  const release = (handle: bigint): Promise<unknown> => db.query('SELECT bgw_set_latch($1::bigint)', [handle]);
  const a = await locker('a', 'shared', /a has it/);
  const b = await locker('b', 'shared', /b has it/);
  const c = await locker('c', 'exclusive', /c waits/);
  const d = await locker('d', 'shared', /d waits/);
  const thrower = await launch(db, 'shared_thrower');
  await until(async () => (await attempt(db, thrower))['status'] === 'started');

  await release(a);
  expect(await ended(db, a)).toMatchObject({ status: 'done' });
  expect(await linesOf(db, c)).toEqual(['c waits']);
  await release(b);
  await saidBy(db, c, /c has it/);
  expect(await linesOf(db, d)).toEqual(['d waits']);
  await release(c);
  await saidBy(db, d, /d has it/);
  await release(d);
  expect(await ended(db, thrower)).toMatchObject({ exit_code: 1, message: 'with the lock in its hands' });

  const last = await locker('e', 'exclusive', /e has it/);
  await release(last);
  expect(await ended(db, last)).toMatchObject({ status: 'done' });
});

test("a wait for a lock ends with its timeout and with SIGTERM, and is then in nobody's way", async ({ db }) => {
  const holder = await start(db, 'shared_locker', /has it/, { as: 'holder', mode: 'shared' });
  const hurried = await launch(db, 'shared_locker', { as: 'hurried', mode: 'exclusive', timeout: 50 });
  expect(await ended(db, hurried)).toMatchObject({
    exit_code: 1,
    sqlstate: '55P03',
    message: 'could not obtain exclusive lock "the lock" within 50 ms',
  });
  const waiter = await start(db, 'shared_locker', /waits/, { as: 'waiter', mode: 'exclusive' });
  const behind = await start(db, 'shared_locker', /waits/, { as: 'behind', mode: 'shared' });
  expect(await linesOf(db, behind)).toEqual(['behind waits']);
  await db.query('SELECT bgw_terminate($1::bigint)', [waiter]);
  expect(await ended(db, waiter)).toMatchObject({ status: 'cancelled', sqlstate: '57P01' });
  await saidBy(db, behind, /behind has it/);
  expect(await attempt(db, holder)).toMatchObject({ restarts: 0, status: 'started' });
});

test('a crash of one ends all, zeroes the segments and starts all again at once; other workers do not notice', async ({
  db,
}) => {
  const crashing = await start(db, 'shared_keeper', /starts/);
  const innocent = await start(db, 'shared_keeper', /starts/);
  const never = await start(db, 'shared_once', /"starts":3/);
  const others = [await launch(db, 'hello_signal'), await launch(db, 'kill_idle')];
  for (const handle of others) await db.query('CALL bgw_wait_for_startup($1)', [handle]);
  const before = await Promise.all(others.map((handle) => attempt(db, handle)));
  const osPid = await osPidOf(db, crashing);

  await db.query(`SELECT bgw_signal($1::bigint, 'SIGUSR1')`, [crashing]);

  expect(await ended(db, never)).toMatchObject({ status: 'failed' });
  await Promise.all([crashing, innocent].map((handle) => restarted(db, handle)));
  await Promise.all([crashing, innocent].map((handle) => until(async () => (await starts(db, handle)).length === 2)));
  const counted = [...(await starts(db, crashing)), ...(await starts(db, innocent))];
  expect(
    counted.toSorted((a, b) => a - b),
    'two starts in the old memory, two in the new',
  ).toEqual([1, 1, 2, 2]);
  expect(await isAlive(osPid)).toBe(false);
  expect(await lastRun(db, crashing)).toMatchObject({
    status: 'failed',
    exit_code: 77,
    message: 'background worker "shared_keeper" exited with exit code 77',
  });
  for (const [handle, name] of [
    [innocent, 'shared_keeper'],
    [never, 'shared_once'],
  ] as const) {
    expect(await lastRun(db, handle)).toEqual({
      status: 'failed',
      exit_code: null,
      sqlstate: '57P02',
      message: `background worker "${name}" was terminated because of the crash of another shared-memory worker`,
      detail: 'Background worker "shared_keeper" exited with exit code 77.',
    });
  }

  process.kill(await osPidOf(db, crashing), 'SIGKILL');
  await Promise.all([crashing, innocent].map((handle) => restarted(db, handle, 2)));
  await until(async () => (await starts(db, innocent)).length === 3);
  expect((await starts(db, innocent))[2], 'the segments are zeroes once more').toBeLessThanOrEqual(2);
  for (const handle of [crashing, innocent]) {
    expect(await lastRun(db, handle)).toMatchObject({
      exit_code: null,
      sqlstate: null,
      message:
        'background worker "shared_keeper" was terminated because the shared-memory host was terminated by signal SIGKILL',
    });
  }
  expect(await Promise.all(others.map((handle) => attempt(db, handle)))).toEqual(before);
  expect(await db.value('SELECT count(*)::int FROM bgw_run_history')).toBe(5);
});

/** What a keeper has counted, one number a start. */
async function starts(db: TestDatabase, handle: bigint): Promise<number[]> {
  return (await linesOf(db, handle)).flatMap(
    (line) => Number(/"starts":(?<n>\d+)/.exec(line)?.groups?.['n'] ?? []) || [],
  );
}

test('a worker that crashes each time is given up by its own limit; who is taken along has not failed', async ({
  db,
}) => {
  await db.query(
    `SELECT bgw_register(name, library_name => 'shared', function_name => fn, flags => '{backend_database_connection,shmem_access}',
                         restart_time => '60 s', failure_limit => failures, failure_window => '1 h')
     FROM (VALUES ('sturdy', 'keeper', 1), ('fragile', 'crasher', 2)) AS worker (name, fn, failures)`,
  );
  const sturdy = await start(db, 'sturdy', /starts/);
  const fragile = await launch(db, 'fragile');
  expect(await ended(db, fragile)).toMatchObject({ exit_code: 77, status: 'failed' });
  await restarted(db, sturdy, 2);
  expect(await db.value('SELECT failures FROM bgw.process WHERE id = $1', [sturdy])).toBe(0);
  expect(await db.value(`SELECT count(*)::int FROM bgw_run_history WHERE name = 'fragile'`)).toBe(2);
});

test('bgw_terminate ends a thread that ignores SIGTERM by force, and with it what it held', async ({ db }) => {
  const busy = await start(db, 'shared_busy', /busy has it/);
  const keeper = await start(db, 'shared_keeper', /starts/);
  await db.query('SELECT bgw_terminate($1::bigint)', [busy]);
  expect(await ended(db, busy)).toMatchObject({ status: 'cancelled', exit_code: null, sqlstate: '57P01' });
  await saidBy(db, busy, /did not end within its grace after SIGTERM and was killed/);
  await restarted(db, keeper);
  expect(await lastRun(db, keeper)).toMatchObject({ detail: 'Background worker "shared_busy" was killed.' });
  await start(db, 'shared_locker', /has it/, { as: 'next', mode: 'exclusive' });
});

test('a controller that stops ends its threads as it ends processes, and their process with them', async ({
  db,
  node,
}) => {
  const keeper = await start(db, 'shared_keeper', /starts/);
  const osPid = await osPidOf(db, keeper);
  expect(await node.end('SIGTERM')).toBe(0);
  expect(await lastRun(db, keeper)).toMatchObject({ status: 'cancelled', exit_code: 0 });
  await until(async () => !(await isAlive(osPid)), { deadline: 1000 });
  await nothingLeft(db);
});

test('the death of the controller ends the process within a second, whatever its threads do', async ({ db, node }) => {
  const busy = await start(db, 'shared_busy', /busy has it/);
  await start(db, 'shared_keeper', /starts/);
  const osPid = await osPidOf(db, busy);
  await node.end('SIGKILL');
  await until(async () => !(await isAlive(osPid)), { deadline: 1500, what: 'the end of the host' });
  await nothingLeft(db);
});
