/** Schedules: launched by the clock, by the overlap and missed rules, with one row for each due time (I5). */
import { expect, test } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

const APPEND = `INSERT INTO ran (at) VALUES (clock_timestamp())`;

async function schedules(db: TestDatabase, name: string): Promise<Record<string, unknown>> {
  const { rows } = await db.query('SELECT * FROM bgw_schedules WHERE name = $1', [name]);
  return (rows[0] ?? {}) as Record<string, unknown>;
}

async function outcomes(db: TestDatabase, name: string): Promise<string> {
  return db.value(`SELECT string_agg(outcome, ' ' ORDER BY due_at) FROM bgw_schedule_history WHERE name = $1`, [name]);
}

/** Calls the control functions as a node would, at a time of the test's choice. */
async function turn(db: TestDatabase, at: string): Promise<void> {
  await db.query(`SELECT set_config('bgw.fake_now', $1, false)`, [at]);
  await db.query('SELECT bgw.tick_schedules()');
  await db.query('SELECT bgw.note_schedules()');
  await db.query(`SELECT set_config('bgw.fake_now', '', false)`);
}

test('a schedule runs its command at its due times, and says how it went', async ({ db, controller }) => {
  await db.query('CREATE TABLE ran (at timestamptz)');
  const next = await db.value<Date>(`SELECT bgw_schedule('each_second', '1 second', $1)`, [APPEND]);
  expect(next.getTime() - Date.now()).toBeLessThan(1100);
  await until(async () => Number(await db.value('SELECT count(*) FROM ran')) >= 3);
  expect(await db.value(`SELECT max(extract(milliseconds FROM at)::int % 1000) FROM ran`)).toBeLessThan(500);
  await until(async () => Number((await schedules(db, 'each_second'))['ran']) >= 3);
  expect(await schedules(db, 'each_second')).toMatchObject({
    schedule: '1 second',
    timezone: 'UTC',
    command: APPEND,
    worker: 'each_second',
    last_status: 'done',
    active: true,
    failed: 0n,
    next_run: expect.any(Date),
    last_run: expect.any(Date),
  });
  expect(await outcomes(db, 'each_second')).toMatch(/^launched( launched)+$/);
  expect(
    await db.value(
      `SELECT bool_and(due_at = date_trunc('second', due_at) AND started_at >= due_at) FROM bgw_run_history`,
    ),
  ).toBe(true);
  expect(await db.value(`SELECT bgw_unschedule('each_second')`)).toBe(true);
  expect(await schedules(db, 'each_second')).toEqual({});
  await until(
    async () => (await db.value('SELECT count(*) FROM bgw.schedule_state WHERE starts_at IS NOT NULL')) === 0n,
  );
  expect(controller.observations.some(({ kind }) => kind === 'connection_lost')).toBe(false);
});

test('the same schedule again changes nothing; another text changes it; its worker goes with it', async ({ db }) => {
  const define = `SELECT bgw_schedule('nightly', '0 3 * * *', 'VACUUM')`;
  await db.query(define);
  const state = `SELECT xmin::text || ctid FROM bgw.schedule`;
  const before = await db.value(state);
  await db.query(define);
  expect(await db.value(state)).toBe(before);
  await db.query(`SELECT bgw_schedule('nightly', '0 4 * * *', 'VACUUM ANALYZE', timezone => 'Europe/Berlin')`);
  expect(await schedules(db, 'nightly')).toMatchObject({
    schedule: '0 4 * * *',
    command: 'VACUUM ANALYZE',
    timezone: 'Europe/Berlin',
    waiting_for: 'a controller: none is running',
  });
  await db.query(`SELECT bgw_unschedule('nightly')`);
  expect(await db.value(`SELECT count(*) FROM bgw_stat_activity WHERE name = 'nightly'`)).toBe(0n);
  await db.query(define);
  expect(await schedules(db, 'nightly')).toMatchObject({ schedule: '0 3 * * *', command: 'VACUUM' });
});

test('what a schedule cannot be is refused, and nothing of it stays', async ({ db }) => {
  for (const [call, code] of [
    [`bgw_schedule('x', '61 * * * *', 'SELECT 1')`, '22023'],
    [`bgw_schedule('x', '* * * * *', 'SELECT 1', timezone => 'Mars/Base')`, '22023'],
    [`bgw_schedule('x', '* * * * *')`, '22023'],
    [`bgw_schedule('x', '* * * * *', 'SELECT 1', worker => 'hello_world')`, '22023'],
    [`bgw_schedule('x', '* * * * *', worker => 'nobody')`, '42704'],
    [`bgw_schedule('x', '* * * * *', worker => 'hello_world', retries => 3)`, '22023'],
    [`bgw_schedule('kill_idle', '* * * * *', 'SELECT 1')`, '42710'],
    [`bgw_schedule('x', '* * * * *', 'SELECT 1', overlap => 'parallel 0')`, '22023'],
    [`bgw_schedule('x', '* * * * *', 'SELECT 1', overlap => 'maybe')`, '22023'],
    [`bgw_schedule('x', '* * * * *', 'SELECT 1', missed => 'run all')`, '22023'],
    [`bgw_schedule('x', '* * * * *', 'SELECT 1', jitter => '-1 s')`, '22023'],
    [`bgw_schedule('x', '* * * * *', 'SELECT 1', retries => -1)`, '22023'],
    [`bgw_schedule('x', '* * * * *', 'SELECT 1', priority => 5000)`, '22023'],
    [`bgw_schedule('x', '* * * * *', 'SELECT 1', valid_from => 'tomorrow', valid_until => 'today')`, '22023'],
    [`bgw_schedule('', '* * * * *', 'SELECT 1')`, '22023'],
    [`bgw_schedule_at('x', 'infinity', 'SELECT 1')`, '22023'],
    [`bgw_unschedule('x')`, '42704'],
    [`bgw_pause('x')`, '42704'],
    [`bgw_run_now('x')`, '42704'],
    [`bgw_purge_backlog('x')`, '42704'],
  ] as const) {
    await expect(db.query(`SELECT ${call}`), call).rejects.toMatchObject({ code });
  }
  expect(await db.value('SELECT count(*) FROM bgw.schedule')).toBe(0n);
  expect(await db.value(`SELECT count(*) FROM bgw.worker WHERE name = 'x'`)).toBe(0n);
});

test('once: bgw_schedule_at runs at its time, a time that is over at once, and never again (I5)', async ({
  db,
  controller,
}) => {
  await db.query('CREATE TABLE ran (at timestamptz)');
  const call = `SELECT bgw_schedule_at('once', '2026-01-01 00:00+00', $1)`;
  await db.query(call, [APPEND]);
  await until(async () => (await schedules(db, 'once'))['ran'] === 1n);
  await db.query(call, [APPEND]);
  await db.query(`SELECT bgw_schedule_at('late', '2026-01-01 00:00+00', $1, missed => 'skip')`, [APPEND]);
  await until(async () => (await schedules(db, 'late'))['missed'] === 1n);
  await db.query(`SELECT bgw_schedule_at('soon', now() + interval '300 ms', $1)`, [APPEND]);
  await until(async () => (await schedules(db, 'soon'))['ran'] === 1n);
  expect(await db.value('SELECT count(*) FROM ran')).toBe(2n);
  expect(await schedules(db, 'once')).toMatchObject({
    next_run: null,
    waiting_for: 'nothing: it has no due time any more',
  });
  await controller.stop();
});

test('overlap: queue one keeps one waiting, skip none, parallel N so many; one row for each due time (I5)', async ({
  db,
}) => {
  for (const [name, overlap] of [
    ['queues', 'queue one'],
    ['skips', 'skip'],
    ['doubles', 'parallel 2'],
  ] as const)
    await db.query(`SELECT bgw_schedule($1, '* * * * *', 'SELECT pg_sleep(60)', overlap => $2)`, [name, overlap]);
  await turn(db, '2030-01-01 00:00:30+00');
  // The first is noticed from now on: so the state is set to begin where the test does.
  await db.query(`UPDATE bgw.schedule_state SET due_at = '2030-01-01 00:01+00', starts_at = '2030-01-01 00:01+00'`);
  for (const minute of ['01', '02', '03', '04']) await turn(db, `2030-01-01 00:${minute}:01+00`);
  expect(await outcomes(db, 'queues')).toBe('launched coalesced coalesced coalesced');
  expect(await outcomes(db, 'skips')).toBe('launched skipped skipped skipped');
  expect(await outcomes(db, 'doubles')).toBe('launched launched skipped skipped');
  // Once the first one runs, one more may wait.
  await db.query(
    `UPDATE bgw.process SET run_id = id, node_id = 1, epoch = 1, claimed_at = now() WHERE name = 'queues'`,
  );
  await turn(db, '2030-01-01 00:05:01+00');
  await turn(db, '2030-01-01 00:06:01+00');
  expect(await outcomes(db, 'queues')).toBe('launched coalesced coalesced coalesced launched coalesced');
  expect(await schedules(db, 'queues')).toMatchObject({ running: 1n, backlog: 1n, coalesced: 4n });
  expect(await db.value(`SELECT bgw_purge_backlog('queues')`)).toBe(1n);
  // The clock goes back: what had its turn has it no more.
  await db.query(`UPDATE bgw.schedule_state SET due_at = '2030-01-01 00:01+00', starts_at = '2030-01-01 00:01+00'`);
  await turn(db, '2030-01-01 00:01:01+00');
  expect(await outcomes(db, 'skips')).toBe('launched skipped skipped skipped skipped skipped');
});

test('missed due times: skip, run once, run all up to N', async ({ db }) => {
  for (const [name, missed] of [
    ['skips', 'skip'],
    ['once', 'run once'],
    ['all', 'run all up to 3'],
  ] as const)
    await db.query(`SELECT bgw_schedule($1, '*/10 * * * *', 'SELECT 1', missed => $2)`, [name, missed]);
  await turn(db, '2030-01-01 00:00:30+00');
  await db.query(`UPDATE bgw.schedule_state SET due_at = '2030-01-01 00:10+00', starts_at = '2030-01-01 00:10+00'`);
  // Nobody was there for an hour, and it is five minutes past.
  await turn(db, '2030-01-01 01:05:00+00');
  expect(await outcomes(db, 'skips')).toBe('missed missed missed missed missed missed');
  expect(await outcomes(db, 'once')).toBe('coalesced coalesced coalesced coalesced coalesced launched');
  expect(await outcomes(db, 'all')).toBe('launched launched launched missed missed missed');
  expect(await db.value(`SELECT next_run = '2030-01-01 01:10+00' FROM bgw_schedules WHERE name = 'all'`)).toBe(true);
  expect(await schedules(db, 'skips')).toMatchObject({ missed: 6n });
});

test('cancel previous ends the earlier run, and starts when it is gone', async ({ db, controller }) => {
  await db.query(`SELECT bgw_schedule('restless', '1 second', 'SELECT pg_sleep(600)', overlap => 'cancel previous')`);
  await until(async () => Number((await schedules(db, 'restless'))['ran']) >= 2, { deadline: 15_000 });
  expect(await db.value(`SELECT bool_and(status = 'cancelled') FROM bgw_run_history`)).toBe(true);
  expect(
    await db.value(
      `SELECT bool_and(started_at >= previous) FROM (SELECT started_at, lag(finished_at) OVER (ORDER BY run_id) AS previous FROM bgw_run_history) AS run`,
    ),
  ).toBe(true);
  await db.query(`SELECT bgw_unschedule('restless', stop => true)`);
  await until(async () => (await db.value('SELECT count(*) FROM bgw.process')) === 0n);
  expect(controller.observations.some(({ kind }) => kind === 'unexpected_error')).toBe(false);
});

test('pause, resume, run now; retries with back-off; a timeout from outside', async ({ db, controller }) => {
  await db.query('CREATE TABLE ran (at timestamptz)');
  await db.query(`SELECT bgw_schedule('daily', '0 0 1 1 *', $1)`, [APPEND]);
  await until(async () => (await schedules(db, 'daily'))['next_run'] !== null);
  expect(await db.value(`SELECT bgw_pause('daily')`)).toBe(true);
  expect(await db.value(`SELECT bgw_pause('daily')`)).toBe(false);
  expect(await schedules(db, 'daily')).toMatchObject({ active: false, next_run: null, waiting_for: 'bgw_resume' });
  const handle = await db.value<bigint>(`SELECT bgw_run_now('daily')`);
  await controller.saw('worker_exited', { handle: String(handle) });
  await until(async () => (await schedules(db, 'daily'))['ran'] === 1n);
  await db.query(`SELECT bgw_resume('daily')`);
  await until(async () => (await schedules(db, 'daily'))['next_run'] !== null);

  await db.query(`SELECT bgw_schedule('fails', '0 0 1 1 *', 'SELECT 1/0', retries => 2, retry_time => '20 ms')`);
  await db.query(`SELECT bgw_run_now('fails')`);
  await until(async () => (await schedules(db, 'fails'))['ran'] === 1n);
  expect(await schedules(db, 'fails')).toMatchObject({ last_status: 'failed', failed: 1n, retries: 2 });
  expect(await db.value(`SELECT count(*) FROM bgw_run_history WHERE name = 'fails'`)).toBe(3n);

  await db.query(`SELECT bgw_schedule('hangs', '0 0 1 1 *', 'SELECT pg_sleep(600)', timeout => '100 ms')`);
  await db.query(`SELECT bgw_run_now('hangs')`);
  await until(async () => (await schedules(db, 'hangs'))['last_status'] === 'expired');
});

test('valid from, valid until, exceptions and time zone decide what is due', async ({ db }) => {
  await db.query(
    `SELECT bgw_schedule('bounded', '0 12 * * *', 'SELECT 1', timezone => 'Asia/Tokyo', valid_from => '2030-01-01 00:00+09',
                         valid_until => '2030-01-05 00:00+09', exceptions => '{2030-01-01,2030-01-03}')`,
  );
  const due = `SELECT bgw.next_due(definition, $1::timestamptz) AT TIME ZONE 'Asia/Tokyo' AS due FROM bgw.schedule AS definition`;
  const text = async (after: string): Promise<string> => db.value(`SELECT due::text FROM (${due}) AS next`, [after]);
  expect(await text('2029-01-01')).toBe('2030-01-02 12:00:00');
  expect(await text('2030-01-02 12:00+09')).toBe('2030-01-04 12:00:00');
  expect(await text('2030-01-04 12:00+09')).toBe(null);
});

test('due times are bounded, so many per schedule', async ({ db }) => {
  await db.query(`SELECT bgw_schedule('often', '1 second', 'SELECT 1')`);
  await db.query(`SELECT bgw.note_schedules()`);
  await db.query(`UPDATE bgw.schedule_state SET last_due_at = now()`);
  await db.query(
    `INSERT INTO bgw.tick (schedule_id, due_at, outcome) SELECT id, now() - n * interval '1 s', 'launched' FROM bgw.schedule, generate_series(1, 1500) AS n`,
  );
  await db.query('SELECT bgw.trim()');
  expect(await db.value('SELECT count(*) FROM bgw.tick')).toBe(1000n);
  expect(await db.value(`SELECT min(due_at) > now() - interval '1010 s' FROM bgw.tick`)).toBe(true);
});

test('@reboot runs when the first controller joins', async ({ db, startController }) => {
  await db.query('CREATE TABLE ran (at timestamptz)');
  await db.query(`SELECT bgw_schedule('boot', '@reboot', $1)`, [APPEND]);
  const first = await startController();
  await until(async () => (await schedules(db, 'boot'))['ran'] === 1n);
  await until(async () => (await schedules(db, 'boot'))['waiting_for'] === 'the first controller to join');
  await first.stop();
  const second = await startController({ nodeName: 'second' });
  await until(async () => (await schedules(db, 'boot'))['ran'] === 2n);
  await startController({ nodeName: 'third' });
  await second.saw('took_orders');
  expect(await db.value('SELECT count(*) FROM ran')).toBe(2n);
});

test('a schedule that cannot be evaluated is stopped with the reason, and delays no other', async ({
  db,
  controller,
}) => {
  await db.query('CREATE TABLE ran (at timestamptz)');
  await db.query(`SELECT bgw_schedule('bad', '1 second', 'SELECT 1')`);
  await db.query(`SELECT bgw_schedule('good', '1 second', $1)`, [APPEND]);
  await until(async () => Number(await db.value('SELECT count(*) FROM ran')) >= 1);
  // As after a change of the server's time zone data.
  await db.query('ALTER TABLE bgw.schedule DISABLE TRIGGER USER');
  await db.query(`UPDATE bgw.schedule SET timezone = 'Mars/Base', exceptions = '{2000-01-01}' WHERE name = 'bad'`);
  await until(async () => String((await schedules(db, 'bad'))['waiting_for']).includes('Mars/Base'));
  const before = Number(await db.value('SELECT count(*) FROM ran'));
  await until(async () => Number(await db.value('SELECT count(*) FROM ran')) > before + 1);
  expect(controller.observations.some(({ kind }) => kind === 'connection_lost')).toBe(false);
});

test('two nodes never launch a due time twice (I5)', async ({ db, startController }) => {
  await startController({ nodeName: 'one' });
  await startController({ nodeName: 'two' });
  for (let i = 0; i < 20; i += 1) await db.query(`SELECT bgw_schedule($1, '1 second', 'SELECT 1')`, [`s${i}`]);
  await until(async () => Number(await db.value(`SELECT count(*) FROM bgw_run_history`)) >= 60, { deadline: 15_000 });
  expect(await db.value(`SELECT count(*) - count(DISTINCT (name, due_at)) FROM bgw_run_history`)).toBe(0n);
});

test('of what is due together the higher priority starts first', async ({ db, startController }) => {
  await db.query('CREATE TABLE ran (at timestamptz, name text DEFAULT current_setting($$bgw.worker_name$$))');
  for (const [name, priority] of [
    ['low', -5],
    ['middle', 0],
    ['high', 7],
  ] as const)
    await db.query(`SELECT bgw_schedule_at($1, '2026-01-01', $2, priority => $3)`, [name, APPEND, priority]);
  await startController({ maxWorkerProcesses: 1 });
  await until(async () => (await db.value('SELECT count(*) FROM ran')) === 3n);
  expect(await db.value(`SELECT string_agg(name, ' ' ORDER BY at) FROM ran`)).toBe('high middle low');
});

test('many that are due at once start within the slots, by priority and then age, and who has waited long goes first', async ({
  db,
  startController,
}) => {
  await db.query('CREATE TABLE ran (priority int, began timestamptz, ended timestamptz)');
  const command =
    'INSERT INTO ran SELECT %s, began, clock_timestamp() FROM (SELECT clock_timestamp() AS began, pg_sleep(0.002) OFFSET 0) AS slept';
  await db.query(
    `SELECT count(bgw_schedule_at('s' || n, '2026-01-01', format($1, n % 3), priority => n % 3)) FROM generate_series(1, 150) AS n`,
    [command],
  );
  const slots = 4;
  const controller = await startController({ maxWorkerProcesses: slots });
  await until(async () => (await db.value('SELECT count(*) FROM bgw_run_history')) === 150n, { deadline: 20_000 });
  // Those that begin together may begin in any order; and one in a new session does late, which has its caches to fill.
  const blurred = 3 * slots;
  const priorities = await db.value<number[]>('SELECT array_agg(priority ORDER BY began) FROM ran');
  for (const [first, priority] of [2, 1, 0].entries()) {
    const begun = priorities.slice(first * 50 + blurred, (first + 1) * 50 - blurred);
    expect(new Set(begun)).toEqual(new Set([priority]));
  }
  const most = await db.value<number>(
    `SELECT max((SELECT count(*)::int FROM ran AS other WHERE other.began <= run.began AND other.ended > run.began)) FROM ran AS run`,
  );
  expect(most).toBeGreaterThan(1);
  expect(most).toBeLessThanOrEqual(slots);

  // A minute of waiting is worth a point of priority: nobody starves.
  await db.query(
    `SELECT bgw_schedule('old', '@yearly', 'SELECT 1', priority => -5), bgw_schedule('new', '@yearly', 'SELECT 1', priority => 5)`,
  );
  await controller.stop();
  await db.query(`SELECT bgw_run_now('old'), bgw_run_now('new')`);
  const order = `SELECT string_agg(name, ' ' ORDER BY turn) FROM bgw.process`;
  expect(await db.value(order)).toBe('new old');
  await db.query(`UPDATE bgw.process SET turn = turn - 601 WHERE name = 'old'`);
  expect(await db.value(order)).toBe('old new');
});

test('others see and change only their own schedules', async ({ ordinary }) => {
  const { db, role } = ordinary;
  await db.query(`SELECT bgw_schedule('mine', '@daily', 'SELECT 1')`);
  await db.query('RESET SESSION AUTHORIZATION');
  const stranger = `${role}_stranger`;
  await db.query(`CREATE ROLE ${stranger}`);
  try {
    await db.query(`SET SESSION AUTHORIZATION ${stranger}`);
    expect(await db.value('SELECT count(*) FROM bgw_schedules')).toBe(0n);
    await expect(db.query(`SELECT bgw_unschedule('mine')`)).rejects.toMatchObject({ code: '42704' });
    await expect(db.query(`SELECT bgw_schedule('theirs', '@daily', 'SELECT 1')`)).rejects.toMatchObject({
      code: 'WK201',
    });
    for (const sql of [
      `INSERT INTO bgw.schedule (name, worker_id, schedule) SELECT 'x', 1, '@daily'`,
      `INSERT INTO bgw.process (worker_id, schedule_id) VALUES (1, 1)`,
      `INSERT INTO bgw.schedule_change (schedule_id) VALUES (1)`,
      `UPDATE bgw.schedule_state SET ran = 7`,
      `BEGIN; LOCK TABLE bgw.schedule`,
      `BEGIN; LOCK TABLE bgw.schedule_state`,
    ]) {
      await expect(db.query(sql), sql).rejects.toMatchObject({ code: expect.stringMatching(/^(42501|42704|22023)$/) });
      await db.query('ROLLBACK');
    }
  } finally {
    await db.query('RESET SESSION AUTHORIZATION');
    await db.query(`DROP ROLE ${stranger}`);
  }
});

test('a transaction that somebody leaves open does not stop a schedule', async ({ db, startController }) => {
  await db.query('CREATE TABLE ran (at timestamptz)');
  await db.query(`SELECT bgw_schedule('each_second', '1 second', $1)`, [APPEND]);
  const sleeper = await db.client();
  await sleeper.query('BEGIN');
  await sleeper.query(`SELECT bgw_schedule('each_second', '2 seconds', 'SELECT 1')`);
  await startController();
  await until(async () => Number(await db.value('SELECT count(*) FROM ran')) >= 2);
  await sleeper.query('ROLLBACK');
});
