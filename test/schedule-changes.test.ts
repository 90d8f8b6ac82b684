/** A schedule that is written again, paused or made while nobody is there: which due times are left, and which begin anew. */
import { expect, test } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

async function schedule(db: TestDatabase, name: string): Promise<Record<string, unknown>> {
  const { rows } = await db.query('SELECT * FROM bgw_schedules WHERE name = $1', [name]);
  return (rows[0] ?? {}) as Record<string, unknown>;
}

/** What became of its due times, each with the minutes from a time on. */
async function outcomes(db: TestDatabase, name: string, start: string): Promise<string> {
  return db.value(
    `SELECT string_agg(format('%s %s', round(date_part('epoch', due_at - $2::timestamptz) / 60), outcome), ', ' ORDER BY due_at)
     FROM bgw_schedule_history WHERE name = $1`,
    [name, start],
  );
}

/** Dates what no node has looked at yet, in the order in which it was written. */
async function writtenAt(db: TestDatabase, ...times: string[]): Promise<void> {
  await db.query(
    `UPDATE bgw.schedule_change SET changed_at = written.at
     FROM (SELECT id, ($1::timestamptz[])[row_number() OVER (ORDER BY id)] AS at FROM bgw.schedule_change) AS written
     WHERE written.id = schedule_change.id`,
    [times],
  );
}

/** One turn of a node at a time of the test's choice, without the orders. */
async function turn(db: TestDatabase, at: string): Promise<void> {
  await db.query(`SELECT set_config('bgw.fake_now', $1, false)`, [at]);
  await db.query(
    `SELECT bgw.do_chores(0, looked) FROM (SELECT false AS others, false AS house, true AS schedules, false AS databases) AS looked`,
  );
  await db.query(`SELECT set_config('bgw.fake_now', '', false)`);
}

async function isNoted(db: TestDatabase): Promise<void> {
  await until(async () => (await db.value('SELECT count(*) FROM bgw.schedule_change')) === 0n);
}

const MIDNIGHT = '2030-01-01 00:00+00';
const at = (minutes: string): string => `2030-01-01 00:${minutes}+00`;

test('a change that says nothing of times leaves a run that waits for its jitter', async ({ db, controller }) => {
  const define = `SELECT bgw_schedule('jittered', '@yearly', 'SELECT 1', jitter => '1 day', priority => $1)`;
  await db.query(define, [0]);
  await isNoted(db);
  const state = `SELECT due_at::text || starts_at FROM bgw.schedule_state`;
  await db.query(
    `UPDATE bgw.schedule_state SET due_at = date_trunc('second', now()) - interval '1 s', starts_at = date_trunc('second', now()) + interval '1 h'`,
  );
  const before = await db.value(state);
  await db.query(define, [5]);
  await db.query(`SELECT bgw_schedule('jittered', '@yearly', 'SELECT 1', jitter => '1 day', missed => 'skip')`);
  await isNoted(db);
  expect(await db.value(state)).toBe(before);
  await db.query(`UPDATE bgw.schedule_state SET starts_at = now()`);
  await until(async () => (await schedule(db, 'jittered'))['ran'] === 1n);
  expect(controller.observations.some(({ kind }) => kind === 'unexpected_error')).toBe(false);
});

test('of many that are due and are changed just before, or at that moment, each is launched once', async ({ db }) => {
  await db.query(`SELECT bgw_register('shared', 'SELECT 1')`);
  await db.query(
    `SELECT count(bgw_schedule('s' || n, '* * * * *', worker => 'shared')) FROM generate_series(1, 1100) AS n`,
  );
  await db.query('UPDATE bgw.schedule_change SET changed_at = $1', [at('00:30')]);
  await turn(db, at('00:40'));
  await db.query('UPDATE bgw.schedule SET priority = 1');
  await db.query('UPDATE bgw.schedule_change SET changed_at = $1', [at('00:59.9')]);
  await turn(db, at('01:00.1'));
  await db.query(`UPDATE bgw.schedule SET schedule = '*/2 * * * *'`);
  await db.query('UPDATE bgw.schedule_change SET changed_at = $1', [at('01:00.2')]);
  for (let turns = 0; turns < 3; turns += 1) await turn(db, at('01:00.3'));
  expect(
    await db.value(`SELECT count(*) FROM bgw.tick WHERE outcome = 'launched' AND due_at = $1`, [at('01:00')]),
  ).toBe(1100n);
  expect(await db.value('SELECT bool_and(due_at = $1) FROM bgw.schedule_state', [at('02:00')])).toBe(true);
});

test('a schedule that was made while no controller was up is due from then on', async ({ db, startController }) => {
  // Not within half an hour of now.
  const hourly = await db.value(`SELECT to_char(now() AT TIME ZONE 'UTC' + interval '30 min', 'FMMI') || ' * * * *'`);
  await db.query(
    `SELECT bgw_schedule('early', $1, 'SELECT 1'), bgw_schedule('strict', $1, 'SELECT 1', missed => 'skip')`,
    [hourly],
  );
  await db.query(`UPDATE bgw.schedule_change SET changed_at = now() - interval '3 h'`);
  await startController();
  await until(async () => (await schedule(db, 'early'))['ran'] === 1n);
  expect(
    await db.value(`SELECT string_agg(outcome, ' ' ORDER BY due_at) FROM bgw_schedule_history WHERE name = 'early'`),
  ).toBe('coalesced coalesced launched');
  expect((await schedule(db, 'strict'))['missed']).toBe(3n);
});

test('due times of a pause are none, those before it and after it are', async ({ db }) => {
  await db.query(`SELECT bgw_schedule('paused', '* * * * *', 'SELECT 1', missed => 'skip', overlap => 'parallel 9')`);
  await writtenAt(db, at('00:30'));
  await turn(db, at('00:40'));
  await db.query(`SELECT bgw_pause('paused')`);
  await db.query(`SELECT bgw_resume('paused')`);
  await writtenAt(db, at('03:30'), at('06:30'));
  await turn(db, at('08:10'));
  expect(await outcomes(db, 'paused', MIDNIGHT)).toBe('1 missed, 2 missed, 3 missed, 7 missed, 8 launched');
  expect(await schedule(db, 'paused')).toMatchObject({ missed: 4n });
  // Paused with a node up: nothing is due until it is resumed.
  await db.query(`SELECT bgw_pause('paused')`);
  await writtenAt(db, at('08:30'));
  await turn(db, at('12:00'));
  expect(await schedule(db, 'paused')).toMatchObject({ next_run: null });
  await db.query(`SELECT bgw_resume('paused')`);
  await writtenAt(db, at('13:30'));
  await turn(db, at('14:10'));
  expect(await outcomes(db, 'paused', at('08:10'))).toMatch(/0 launched, 6 launched$/);
});

test('due times of before a new text are those of the old one, and what waited while it was paused runs after it', async ({
  db,
}) => {
  await db.query(
    `SELECT bgw_schedule('moved', '* * * * *', 'SELECT 1', missed => 'run all up to 9', overlap => 'parallel 9')`,
  );
  await writtenAt(db, at('00:30'));
  await turn(db, at('00:40'));
  await db.query(
    `SELECT bgw_schedule('moved', '*/2 * * * *', 'SELECT 1', missed => 'run all up to 9', overlap => 'parallel 9')`,
  );
  await writtenAt(db, at('10:30'));
  await turn(db, at('14:30'));
  expect(await outcomes(db, 'moved', MIDNIGHT)).toBe('1 launched, 12 launched, 14 launched');
  // Its time has come, it waits for its jitter, and is paused.
  await db.query(`UPDATE bgw.schedule_state SET starts_at = due_at + interval '1 min'`);
  await db.query(`SELECT bgw_pause('moved')`);
  await writtenAt(db, at('16:30'));
  for (const minute of ['16:40', '18:40']) await turn(db, at(minute));
  expect(await schedule(db, 'moved')).toMatchObject({ next_run: null });
  await db.query(`SELECT bgw_resume('moved')`);
  await writtenAt(db, at('19:30'));
  await turn(db, at('20:10'));
  expect(await outcomes(db, 'moved', MIDNIGHT)).toBe('1 launched, 12 launched, 14 launched, 16 launched, 20 launched');
  // Removed: nothing of it is left for another one of that name.
  await db.query(`SELECT bgw_unschedule('moved')`);
  await db.query(`SELECT bgw_schedule('moved', '* * * * *', 'SELECT 1', overlap => 'parallel 9')`);
  await writtenAt(db, at('22:30'), at('24:30'));
  await turn(db, at('25:10'));
  expect(await outcomes(db, 'moved', at('22:00'))).toBe('3 launched');
});

test('a single time that is over when it is resumed runs then, also where no controller was up', async ({
  db,
  startController,
}) => {
  await db.query(
    `SELECT bgw_schedule_at(name, now() + interval '1 h', 'SELECT 1') FROM (VALUES ('held'), ('resumed')) AS made (name)`,
  );
  const first = await startController();
  await isNoted(db);
  await first.stop();
  await db.query(`SELECT bgw_pause('held'), bgw_pause('resumed')`);
  await db.query('ALTER TABLE bgw.schedule DISABLE TRIGGER USER');
  await db.query(`UPDATE bgw.schedule SET at = now() - interval '1 h'`);
  await db.query('ALTER TABLE bgw.schedule ENABLE TRIGGER USER');
  await db.query(`UPDATE bgw.schedule_state SET due_at = now() - interval '1 h', starts_at = now() - interval '1 h'`);
  await db.query(`SELECT bgw_resume('resumed')`);
  await startController({ nodeName: 'second' });
  await until(async () => (await schedule(db, 'resumed'))['ran'] === 1n);
  expect(await schedule(db, 'held')).toMatchObject({ ran: 0n, waiting_for: 'bgw_resume' });
  await db.query(`SELECT bgw_resume('held')`);
  await until(async () => (await schedule(db, 'held'))['ran'] === 1n);
});

test('of what a long outage missed "run all up to N" runs N, however many turns it takes', async ({ db }) => {
  await db.query(
    `SELECT bgw_schedule('caught_up', '1 second', 'SELECT 1', missed => 'run all up to 3', overlap => 'parallel 9')`,
  );
  await writtenAt(db, at('00:00.5'));
  for (let turns = 0; turns < 4; turns += 1) await turn(db, at('50:00.5'));
  expect(
    await db.value(
      `SELECT json_object_agg(outcome, due) FROM (SELECT outcome, count(*) AS due FROM bgw.tick GROUP BY 1) AS counted`,
    ),
  ).toEqual({ launched: 4, missed: 2996 });
  // The next outage has a count of its own.
  await turn(db, at('51:00.5'));
  expect(await db.value(`SELECT count(*) FROM bgw.tick WHERE outcome = 'launched'`)).toBe(8n);
});

test('what was missed is not caught up with a worker that cannot be launched', async ({ db }) => {
  await db.query(`SELECT bgw_register(name, 'SELECT 1') FROM unnest('{off,gone}'::text[]) AS name`);
  await db.query(
    `SELECT bgw_schedule(name, '* * * * *', worker => name, missed => 'run all up to 3') FROM unnest('{off,gone}'::text[]) AS name`,
  );
  await writtenAt(db, at('00:30'), at('00:30'));
  await turn(db, at('00:40'));
  await db.query(`SELECT bgw_register('off', 'SELECT 1', enabled => false), bgw_unregister('gone')`);
  await turn(db, at('03:10'));
  for (const name of ['off', 'gone']) expect(await outcomes(db, name, MIDNIGHT)).toBe('1 missed, 2 missed, 3 skipped');
  expect(await db.value('SELECT count(*)::int FROM bgw.process')).toBe(0);
});

test('a schedule that one session removes and another changes at once is no deadlock', async ({ db }) => {
  await db.query(`SELECT bgw_register('other', 'SELECT 1')`);
  for (const leave of [`bgw_unschedule('s')`, `bgw_schedule('s', '@daily', worker => 'other')`]) {
    await db.query(`SELECT bgw_schedule('s', '@daily', 'SELECT 1')`);
    const [first, second] = [await db.client(), await db.client()];
    await first.query('BEGIN');
    await first.query(`SELECT bgw_register('s', 'SELECT 2')`);
    const left = second.query(`SELECT ${leave}`);
    await until(() =>
      db.value(`SELECT bool_or(wait_event_type = 'Lock') FROM pg_stat_activity WHERE datname = current_database()`),
    );
    await first.query(`SELECT bgw_schedule('s', '@hourly', 'SELECT 2')`);
    await first.query('COMMIT');
    await left;
    await db.query(`SELECT bgw_unschedule(name) FROM bgw_schedules WHERE name = 's'`);
  }
});

test('a schedule whose worker others run, as often as may be, says so', async ({ db, controller }) => {
  await db.query(`SELECT bgw_register('busy', 'SELECT 1', naptime => '1 h', autostart => true)`);
  await controller.saw('worker_started', { name: 'busy' });
  await db.query(`SELECT bgw_schedule('s', 'every 1 second', worker => 'busy')`);
  await until(async () => Number((await schedule(db, 's'))['skipped']) > 0);
  expect(await schedule(db, 's')).toMatchObject({
    ran: 0n,
    waiting_for: 'the end of another process of worker "busy": max_instances is 1',
  });
  await db.query(`SELECT bgw_terminate('busy')`);
  await until(async () => Number((await schedule(db, 's'))['running']) > 0);
  expect(await schedule(db, 's')).toMatchObject({ waiting_for: null });
});

test('a run with jitter starts before the next due time, so none is missed', async ({ db }) => {
  await db.query(`SELECT bgw_schedule('jittered', '1 second', 'SELECT 1', jitter => '1 h', overlap => 'parallel 99')`);
  await writtenAt(db, at('00:00.5'));
  await turn(db, at('00:00.6'));
  for (let due = 1; due <= 20; due += 1) {
    expect(
      await db.value('SELECT starts_at >= due_at AND starts_at < due_at + interval $$1 s$$ FROM bgw.schedule_state'),
    ).toBe(true);
    await turn(db, await db.value(`SELECT (starts_at + interval '1 us')::text FROM bgw.schedule_state`));
  }
  expect(await db.value(`SELECT string_agg(DISTINCT outcome, ' ') || count(*) FROM bgw_schedule_history`)).toBe(
    'launched20',
  );
});

test('a long outage of many schedules is worked off in turns that leave time for everything else', async ({ db }) => {
  const node = await db.value<string>(`SELECT node_id::text FROM bgw.join_node('n', '{}', 8)`);
  await db.query(`SELECT bgw_schedule('s' || n, 'every 1 second', 'SELECT 1') FROM generate_series(1, 80) AS n`);
  await db.query('SELECT bgw.take_orders($1, 1, 0)', [node]);
  await db.query(
    `UPDATE bgw.schedule_state SET due_at = due_at - interval '1 hour', starts_at = due_at - interval '1 hour'`,
  );
  await db.query('SELECT bgw.take_orders($1, 1, 0)', [node]);
  const behind = `SELECT count(*)::int FROM bgw.schedule_state WHERE due_at < clock_timestamp() - interval '50 min'`;
  const left = await db.value<number>(behind);
  expect(left).toBeGreaterThan(0);
  expect(left).toBeLessThan(80);
});

test('the worker of a schedule that is unregistered is launched again when it is registered again, however much later', async ({
  db,
  controller,
}) => {
  await db.query(`SELECT bgw_register('rollup', 'SELECT 1')`);
  await db.query(`SELECT bgw_schedule('often', 'every 1 second', worker => 'rollup')`);
  await controller.saw('worker_started', { name: 'rollup' });
  await db.query(`SELECT bgw_unregister('rollup')`);
  await until(() => db.value('SELECT NOT EXISTS (SELECT FROM bgw.process)'));
  await db.query('SELECT bgw.trim()');
  expect(await schedule(db, 'often')).toMatchObject({ worker: null, waiting_for: 'worker "rollup" is unregistered' });
  await db.query(`SELECT bgw_register('rollup', 'SELECT 2')`);
  const { ran } = await schedule(db, 'often');
  await until(async () => Number((await schedule(db, 'often'))['ran']) > Number(ran));
  // Once no schedule names it, it goes.
  await db.query(`SELECT bgw_unschedule('often'), bgw_unregister('rollup')`);
  await until(async () => {
    await db.query('SELECT bgw.trim()');
    return db.value(`SELECT NOT EXISTS (SELECT FROM bgw.worker WHERE name = 'rollup')`);
  });
});

test('a run of a schedule that was removed is not retried with the command of the one that has its name now', async ({
  db,
  controller,
}) => {
  await db.query('CREATE TABLE trace (command text)');
  const define = `SELECT bgw_schedule_at('s', $1, $2, retries => 3, retry_time => '10 ms')`;
  await db.query(define, ['2000-01-01', `INSERT INTO trace VALUES ('old'); SELECT pg_sleep(600)`]);
  const { handle } = await controller.saw('worker_started', { name: 's' });
  await db.query('BEGIN');
  await db.query(`SELECT bgw_unschedule('s')`);
  await db.query(define, ['2100-01-01', `INSERT INTO trace VALUES ('new')`]);
  await db.query('COMMIT');
  await until(() => db.value('SELECT bgw_cancel($1::bigint)', [handle]));
  await db.query(`CALL bgw_wait_for_shutdown($1, '20 s')`, [handle]);
  const { rows } = await db.query('SELECT handle, status FROM bgw_run_history');
  expect(rows).toEqual([{ handle: BigInt(handle), status: 'cancelled' }]);
  expect(await db.value('SELECT count(*)::int FROM trace')).toBe(0);
});

test('an atomic run whose schedule is removed or no longer atomic is done, and leaves nothing behind', async ({
  db,
  controller,
}) => {
  const gate = await db.client();
  for (const [name, change] of [
    ['gone', `bgw_unschedule('gone')`],
    ['session', `bgw_schedule_at('session', '2000-01-01', 'SELECT 1', mode => 'session')`],
  ] as const) {
    await gate.query('SELECT pg_advisory_lock(1)');
    await db.query(`SELECT bgw_schedule_at($1, '2000-01-01', 'SELECT pg_advisory_xact_lock(1)', mode => 'atomic')`, [
      name,
    ]);
    const { handle } = await controller.saw('worker_started', { name });
    await db.query(`SELECT ${change}`);
    await gate.query('SELECT pg_advisory_unlock(1)');
    await db.query(`CALL bgw_wait_for_shutdown($1, '20 s')`, [handle]);
    expect(await db.value('SELECT status FROM bgw_run_history WHERE handle = $1', [handle])).toBe('done');
  }
  expect(await db.value('SELECT count(*)::int FROM bgw.completed_run')).toBe(0);
});

test('a schedule whose worker has gone over to every database says so', async ({ db }) => {
  await db.query(`SELECT bgw_register('w', 'SELECT 1'), bgw_schedule('s', '@daily', worker => 'w')`);
  await db.query(`UPDATE bgw.worker SET scope = 'every_database', autostart = true WHERE name = 'w'`);
  expect((await schedule(db, 's'))['waiting_for']).toBe('worker "w" runs in every database');
});
