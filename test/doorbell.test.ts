/** Who is rung by a launch, and when: sql/doorbell.sql and src/vigil.ts. */
import type pg from 'pg';
import { describe } from 'vitest';
import { Vigil } from '../src/vigil.ts';
import { expect, spawnController, test } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { fakeClock } from './support/clock.ts';
import { until } from './support/until.ts';

/** Counts the rings from now on. */
async function listen(db: TestDatabase): Promise<{ rings: number }> {
  const heard = { rings: 0 };
  const listener = await db.client();
  listener.on('notification', () => (heard.rings += 1));
  await listener.query('LISTEN bgw');
  return heard;
}

/** Whether a statement rings: what was sent before a later notification has arrived with it. */
async function rings(db: TestDatabase, statements: string[]): Promise<number> {
  const listener = await db.client();
  const heard: string[] = [];
  listener.on('notification', ({ channel }) => heard.push(channel));
  await listener.query('LISTEN bgw');
  await listener.query('LISTEN bgw_test_end');
  for (const statement of statements) await db.query(statement);
  await db.query('NOTIFY bgw_test_end');
  await until(() => heard.includes('bgw_test_end'), { what: 'the last notification' });
  return heard.filter((channel) => channel === 'bgw').length;
}

const LAUNCH = `SELECT bgw_launch_sql('SELECT 1')`;
const IS_AWAKE = 'SELECT coalesce(bool_and(awake_until > clock_timestamp()), false) FROM bgw.node';

/** Launches from eight sessions until the node says that it looks by itself. */
async function wake(db: TestDatabase): Promise<pg.Client[]> {
  const sessions = await Promise.all(Array.from({ length: 8 }, () => db.client()));
  await until(
    async () => {
      await Promise.all(sessions.map((session) => session.query(LAUNCH)));
      return db.value<boolean>(IS_AWAKE);
    },
    { what: 'the promise of the node to look by itself' },
  );
  return sessions;
}

async function addNode(db: TestDatabase, fields: string): Promise<void> {
  await db.query(
    `INSERT INTO bgw.node (name, login, control_pid, control_backend_start, max_worker_processes, lease_until, fenced, awake_until)
     VALUES ('a node', bgw.current_owner(), 0, now(), 8, ${fields})`,
  );
}

const RUNNING = `now() + interval '1 min', false`;

describe('a launch rings', () => {
  test('where no node is, or one is not awake', async ({ db }) => {
    expect(await rings(db, [LAUNCH])).toBe(1);
    await addNode(db, `${RUNNING}, clock_timestamp() + bgw.awake()`);
    await addNode(db, `${RUNNING}, NULL`);
    expect(await rings(db, [LAUNCH])).toBe(1);
  });

  test('unless every node that lives is awake', async ({ db }) => {
    await addNode(db, `${RUNNING}, NULL`);
    await addNode(db, `now() - interval '1 s', false, NULL`);
    await addNode(db, `now() + interval '1 min', true, NULL`);
    const promise = `UPDATE bgw.node SET awake_until = clock_timestamp() + bgw.awake() WHERE name = 'a node' AND NOT fenced AND lease_until > now()`;
    expect(await rings(db, [promise, LAUNCH])).toBe(0);
    expect(await rings(db, [`SELECT pg_sleep_for(bgw.awake())`, LAUNCH])).toBe(1);
  });

  test('where a clock that was set back makes a promise longer than any', async ({ db }) => {
    await addNode(db, `${RUNNING}, clock_timestamp() + interval '3 h'`);
    expect(await rings(db, [LAUNCH])).toBe(1);
  });

  test('when it commits, however long before it was made, and in a snapshot of then', async ({ db }) => {
    await addNode(db, `${RUNNING}, NULL`);
    const promise = `UPDATE bgw.node SET awake_until = clock_timestamp() + bgw.awake()`;
    const begin = 'BEGIN ISOLATION LEVEL REPEATABLE READ';
    expect(await rings(db, [promise, begin, LAUNCH, 'SELECT pg_sleep_for(bgw.awake())', 'COMMIT'])).toBe(1);
    expect(await rings(db, [promise, begin, LAUNCH, 'COMMIT'])).toBe(0);
  });

  test('if not it but an earlier one of the transaction was rolled back', async ({ db }) => {
    const undone = ['SAVEPOINT before', LAUNCH, 'ROLLBACK TO before'];
    expect(await rings(db, ['BEGIN', ...undone, LAUNCH, 'COMMIT'])).toBe(1);
    expect(await rings(db, ['BEGIN', ...undone, 'COMMIT'])).toBe(0);
  });

  test('once for all launches of a transaction, which look once; where all are awake, once more at the end', async ({
    db,
  }) => {
    let seen = 0;
    const looks = async (): Promise<number> => {
      const before = seen;
      seen = await db.value(`SELECT calls::int FROM pg_stat_xact_user_functions WHERE funcname = 'ring_unless_awake'`);
      return seen - before;
    };
    const launches = `SELECT count(bgw_launch_sql('SELECT 1')) FROM generate_series(1, 1000)`;
    await db.query(`SET track_functions = 'pl'`);
    await db.query('BEGIN');
    await db.query(launches);
    await db.query('SET CONSTRAINTS ALL IMMEDIATE');
    expect(await looks()).toBe(1);
    expect(await rings(db, ['COMMIT'])).toBe(1);

    await addNode(db, `${RUNNING}, clock_timestamp() + bgw.awake()`);
    await db.query('BEGIN');
    await db.query(launches);
    expect(await looks()).toBe(1);
    await db.query('SET CONSTRAINTS ALL IMMEDIATE');
    expect(await looks()).toBe(1);
    // What is launched after that looks anew, and again at its end, which is at once.
    await db.query(LAUNCH);
    expect(await looks()).toBe(2);
    expect(await rings(db, ['COMMIT'])).toBe(0);
  });

  test('once, also if a node falls asleep while the transaction launches', async ({ db }) => {
    await addNode(db, `${RUNNING}, clock_timestamp() + bgw.awake()`);
    expect(await rings(db, ['BEGIN', LAUNCH, 'SELECT pg_sleep_for(bgw.awake())', LAUNCH, LAUNCH, 'COMMIT'])).toBe(1);
  });
});

test('many sessions that launch are served by a node that looks by itself, almost without rings', async ({
  db,
  controller,
}) => {
  const sessions = await wake(db);
  const heard = await listen(db);
  await Promise.all(
    sessions.map(async (session) => {
      for (let i = 0; i < 50; i += 1) await session.query(LAUNCH);
    }),
  );
  expect(heard.rings).toBeLessThan(200);
  await until(async () => (await db.value<bigint>('SELECT count(*) FROM bgw.process')) === 0n, {
    what: 'the end of every run',
  });
  const started = controller.observations.filter((seen) => seen.kind === 'worker_exited');
  expect(started.length).toBeGreaterThanOrEqual(400);
});

test('a launch that is made while a node is awake and committed when it sleeps starts at once', async ({
  db,
  controller,
}) => {
  await wake(db);
  const app = await db.client();
  await app.query('BEGIN');
  const { rows } = await app.query<{ handle: string }>(`SELECT bgw_launch_sql('SELECT 1') AS handle`);
  await until(async () => !(await db.value<boolean>(IS_AWAKE)), { what: 'the end of the promise' });
  const heard = await listen(db);
  await app.query('COMMIT');
  await until(() => heard.rings === 1, { what: 'a ring' });
  await controller.saw('worker_exited', { handle: String(rows[0]?.handle) });
});

test('what is launched after a node was killed while awake is rung for, and run by the next', async ({
  db,
  startController,
}) => {
  const { end } = await spawnController(db);
  await wake(db);
  await end('SIGKILL');
  await until(async () => !(await db.value<boolean>(IS_AWAKE)), { what: 'the end of the promise' });
  expect(await rings(db, [LAUNCH])).toBe(1);
  const next = await startController();
  const handle = await db.value<bigint>(LAUNCH);
  await next.saw('worker_exited', { handle: String(handle) });
});

describe('a node', () => {
  function createVigil(): { vigil: Vigil; pass: (milliseconds: number) => void } {
    const { clock, pass } = fakeClock();
    return { vigil: new Vigil(clock), pass };
  }

  test('stays awake when several backends ring at about the same time, not when one rings often', () => {
    const { vigil, pass } = createVigil();
    for (let ring = 0; ring < 100; ring += 1) vigil.rung(1);
    for (const pid of [2, 3, 4, 5]) {
      pass(30);
      vigil.rung(pid);
    }
    expect(vigil.isWanted()).toBe(false);
    expect(vigil.nextLook()).toBe(Infinity);
    for (const pid of [6, 7]) vigil.rung(pid);
    expect(vigil.isWanted()).toBe(true);
    vigil.keep(500);
    expect(vigil.isWanted()).toBe(false);
    expect(vigil.nextLook()).toBe(10);
  });

  test('asks once in each promise, half-way, whether to go on', () => {
    const { vigil, pass } = createVigil();
    vigil.keep(500);
    for (let promise = 0; promise < 2; promise += 1) {
      pass(249);
      expect(vigil.isWanted()).toBe(false);
      pass(1);
      expect(vigil.isWanted()).toBe(true);
      vigil.keep(500);
    }
    pass(250);
    vigil.keep(0);
    pass(200);
    expect(vigil.isWanted()).toBe(false);
    expect(vigil.nextLook()).toBe(10);
  });

  test('that falls asleep finds a launch as late as its commit, or sooner', () => {
    for (let commit = 0; commit < 2000; commit += 7) {
      const { vigil, pass } = createVigil();
      vigil.keep(500);
      pass(500);
      let asleep = 0;
      while (asleep < commit) {
        const wait = vigil.nextLook();
        asleep += wait;
        pass(wait);
      }
      expect(asleep - commit).toBeLessThanOrEqual(Math.max(10, commit));
    }
  });
});
