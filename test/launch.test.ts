/** What happens when somebody types SELECT bgw_launch(...): the walk of ARCHITECTURE.md, as assertions. */
import { spawnController } from './support/controller.ts';
import { expect, test } from './support/controller.ts';
import { until } from './support/until.ts';

const RUNS = 'SELECT count(*)::int FROM bgw_run_history WHERE handle = $1';

test('a committed launch starts within milliseconds, and the view shows it', async ({ db, controller }) => {
  await db.query(`SELECT bgw_register('sleeper', 'SELECT pg_sleep(60)')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('sleeper')`);
  await controller.saw('worker_started', { handle: String(handle) });
  const started = await db.query('CALL bgw_wait_for_startup($1)', [handle]);
  expect(started.rows[0]).toMatchObject({ status: 'started', pid: expect.any(Number) });
  // It has started when it holds its session; its statement is there a moment later.
  await until(() => db.value(`SELECT query ~ 'pg_sleep' FROM bgw_stat_activity WHERE handle = $1`, [handle]));
  const { rows } = await db.query('SELECT pid, state, query, status FROM bgw_stat_activity WHERE handle = $1', [
    handle,
  ]);
  expect(rows).toEqual([
    { pid: started.rows[0].pid, state: 'active', query: 'SELECT pg_sleep(60)', status: 'started' },
  ]);
});

test('a rolled-back launch never starts (I3)', async ({ db, controller }) => {
  await db.query('BEGIN');
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_world')`);
  await db.query('ROLLBACK');
  const next = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(next) });
  expect(await db.value('SELECT count(*) FROM bgw_stat_activity WHERE handle = $1', [handle])).toBe(0n);
  expect(await db.value(RUNS, [handle])).toBe(0);
});

test('a launch in a rolled-back savepoint never starts, one beside it does (I3)', async ({ db, controller }) => {
  await db.query('BEGIN');
  const kept = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1', name => 'kept')`);
  await db.query('SAVEPOINT before');
  const undone = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 2', name => 'undone')`);
  await db.query('ROLLBACK TO before');
  await db.query('COMMIT');
  await controller.saw('worker_exited', { handle: String(kept) });
  await until(() => db.value(RUNS, [kept]));
  expect(await db.value(RUNS, [undone])).toBe(0);
});

test('a launch commits with no controller alive, and starts when one comes (I9)', async ({ db, startController }) => {
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  expect(await db.value('SELECT waiting_for FROM bgw_stat_activity WHERE handle = $1', [handle])).toBe(
    'a controller: none is running',
  );
  await startController();
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  expect(await db.value('SELECT status FROM bgw_run_history WHERE handle = $1', [handle])).toBe('done');
});

test('a launch can be prepared for two-phase commit with bgw.notify off (I9)', async ({ db, controller }) => {
  const name = `two_phase_${db.name}`;
  await db.query('BEGIN');
  await db.query('SET LOCAL bgw.notify = off');
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await db.query(`PREPARE TRANSACTION '${name}'`);
  await db.query(`COMMIT PREPARED '${name}'`);
  await controller.saw('worker_exited', { handle: String(handle) });
});

test('a launch whose notification is lost starts within one poll interval (I10)', async ({ db, controller }) => {
  await db.query('SET bgw.notify = off');
  const launchedAt = performance.now();
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(handle) });
  // Two seconds, and what a busy machine takes beyond.
  expect(performance.now() - launchedAt).toBeLessThan(5000);
});

test('forged notifications cost empty looks and nothing else (I10)', async ({ db, controller }) => {
  for (let i = 0; i < 50; i += 1) await db.query(`SELECT pg_notify('bgw', $1)`, [`{"kind":"start","handle":${i}}`]);
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(handle) });
  expect(controller.observations.filter((seen) => seen.kind === 'worker_started')).toHaveLength(1);
});

test('a launch passes its argument and its names on', async ({ db, controller }) => {
  await db.query('CREATE TABLE seen (name text, handle text, run_id text, arg jsonb)');
  await db.query(`SELECT bgw_register('teller', main_arg => '{"n": 1}', command => $$
    INSERT INTO seen VALUES (current_setting('bgw.worker_name'), current_setting('bgw.handle'), current_setting('bgw.run_id'),
                             current_setting('bgw.main_arg')::jsonb)$$)`);
  const first = await db.value<bigint>(`SELECT bgw_launch('teller')`);
  const second = await db.value<bigint>(`SELECT bgw_launch('teller', main_arg => '[12345678901234567890]')`);
  for (const handle of [first, second]) await controller.saw('worker_exited', { handle: String(handle) });
  const { rows } = await db.query('SELECT name, handle, run_id, arg::text FROM seen ORDER BY handle::bigint');
  expect(rows).toEqual([
    { name: 'teller', handle: String(first), run_id: expect.stringMatching(/^\d+$/), arg: '{"n": 1}' },
    { name: 'teller', handle: String(second), run_id: expect.stringMatching(/^\d+$/), arg: '[12345678901234567890]' },
  ]);
  const runs = await until(async () => {
    const { rows } = await db.query('SELECT run_id::text FROM bgw_run_history ORDER BY handle');
    return rows.length === 2 && rows;
  });
  expect(runs).toEqual(rows.map(({ run_id }) => ({ run_id })));
});

test('an unknown worker is an error with a suggestion', async ({ db }) => {
  await expect(db.query(`SELECT bgw_launch('kill_idel')`)).rejects.toMatchObject({
    code: '42704',
    message: 'worker "kill_idel" does not exist',
  });
  await expect(db.query(`SELECT bgw_launch('Kill-Idle')`)).rejects.toMatchObject({
    hint: 'Perhaps you meant worker "kill_idle".',
  });
});

test('more instances than allowed are refused, also from two sessions at once', async ({ db }) => {
  await db.query(`SELECT bgw_launch('hello_world')`);
  await expect(db.query(`SELECT bgw_launch('hello_world')`)).rejects.toMatchObject({
    code: '53400',
    detail: '1 of 1 are registered.',
  });
  const other = await db.client();
  await db.query('BEGIN');
  await db.query(`SELECT bgw_launch('kill_idle')`);
  const refused = expect(other.query(`SELECT bgw_launch('kill_idle')`)).rejects.toMatchObject({ code: '53400' });
  await until(() =>
    db.value(
      `SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
    ),
  );
  await db.query('COMMIT');
  await refused;
});

test('a worker that is not enabled is not launched', async ({ db }) => {
  await db.query(`UPDATE bgw.worker SET enabled = false WHERE name = 'hello_world'`);
  await expect(db.query(`SELECT bgw_launch('hello_world')`)).rejects.toMatchObject({ code: '55000' });
});

test('waiting in the transaction of the launch is refused', async ({ db }) => {
  await db.query('BEGIN');
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_world')`);
  await expect(db.query('CALL bgw_wait_for_startup($1)', [handle])).rejects.toMatchObject({
    code: '55000',
    hint: 'COMMIT first.',
  });
});

test('waiting in the transaction of the launch is refused, also when a savepoint stands between', async ({ db }) => {
  await db.query('BEGIN');
  await db.query('SAVEPOINT before');
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_world')`);
  await db.query('RELEASE before');
  await expect(db.query(`CALL bgw_wait_for_startup($1, '100 ms')`, [handle])).rejects.toMatchObject({ code: '55000' });
});

test('bgw_get_pid follows a process from its launch to its end', async ({ db, startController }) => {
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT pg_sleep(600)')`);
  const status = async (): Promise<unknown> => (await db.query('SELECT * FROM bgw_get_pid($1)', [handle])).rows[0];
  expect(await status()).toEqual({ status: 'not_yet_started', pid: null });
  await startController();
  await db.query('CALL bgw_wait_for_startup($1)', [handle]);
  expect(await status()).toEqual({
    status: 'started',
    pid: await db.value(
      `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query ~ '^SELECT pg_sleep'`,
    ),
  });
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  expect(await status()).toEqual({ status: 'stopped', pid: null });
});

test('waiting ends with its timeout, and says that no controller is alive', async ({ db }) => {
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_world')`);
  const { rows } = await db.query(`CALL bgw_wait_for_startup($1, '50 ms')`, [handle]);
  expect(rows).toEqual([{ status: 'postmaster_died', pid: null }]);
});

test('waiting ends with its timeout while a controller is alive', async ({ db, controller }) => {
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT pg_sleep(60)')`);
  await controller.saw('worker_started', { handle: String(handle) });
  const { rows } = await db.query(`CALL bgw_wait_for_shutdown($1, '50 ms')`, [handle]);
  expect(rows).toEqual([{ status: 'started' }]);
});

test('a handle that nobody has is stopped', async ({ db }) => {
  expect((await db.query('SELECT * FROM bgw_get_pid(4711)')).rows).toEqual([{ status: 'stopped', pid: null }]);
});

test('a worker of a controller that was killed is shown with its postmaster died', async ({ db }) => {
  const node = await spawnController(db);
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_world')`);
  await db.query('CALL bgw_wait_for_startup($1)', [handle]);
  await node.end('SIGKILL');
  await until(async () => {
    // More than once: what the node had sent before it was killed may renew its lease.
    await db.query(`UPDATE bgw.node SET lease_until = now() - interval '1 s'`);
    return (await db.value('SELECT status FROM bgw_get_pid($1)', [handle])) === 'postmaster_died';
  });
});

test('above max_worker_processes a launch waits, and the view says for what', async ({ db, startController }) => {
  const controller = await startController({ maxWorkerProcesses: 1 });
  const first = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT pg_sleep(60)', name => 'first')`);
  await controller.saw('worker_started', { handle: String(first) });
  const second = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1', name => 'second')`);
  expect(await db.value('SELECT waiting_for FROM bgw_stat_activity WHERE handle = $1', [second])).toBe(
    'a free slot: max_worker_processes is 1',
  );
  const napping = await db.value<bigint>(`SELECT bgw_launch('count_relations')`);
  await controller.saw('worker_started', { handle: String(napping) });
  await db.query('SELECT bgw_terminate($1::bigint)', [first]);
  await controller.saw('worker_exited', { handle: String(second) });
});

test('one-shots from four clients, a third of them rolled back: every committed one runs exactly once (I2)', async ({
  db,
  controller,
}) => {
  await db.query('CREATE TABLE effect (n int)');
  const clients = await Promise.all([0, 1, 2, 3].map(() => db.client()));
  await Promise.all(
    clients.map(async (client, c) => {
      for (let i = 0; i < 50; i += 1) {
        await client.query('BEGIN');
        await client.query(`SELECT bgw_launch_sql(format('INSERT INTO effect VALUES (%s)', $1::int))`, [c * 50 + i]);
        await client.query(i % 3 === 0 ? 'ROLLBACK' : 'COMMIT');
      }
    }),
  );
  const committed = 4 * 33;
  await until(async () => (await db.value('SELECT count(*)::int FROM bgw_run_history')) === committed, {
    deadline: 20_000,
  });
  const { rows } = await db.query('SELECT count(*)::int, count(DISTINCT n)::int AS distinct FROM effect');
  expect(rows).toEqual([{ count: committed, distinct: committed }]);
  expect(await db.value('SELECT count(*) FROM bgw.process')).toBe(0n);
  expect(await db.value(`SELECT count(*) FROM bgw_run_history WHERE status <> 'done'`)).toBe(0n);
  expect(controller.observations.some((seen) => seen.kind === 'connection_lost')).toBe(false);
});

test('an autostart worker that is unregistered and registered again starts anew, in one transaction or two', async ({
  db,
  controller,
}) => {
  const register = `SELECT bgw_register('again', 'SELECT pg_sleep(600)', autostart => true)`;
  await db.query(register);
  const handle = (): Promise<bigint> =>
    db.value(`SELECT max(handle) FROM bgw_stat_activity WHERE name = 'again' AND status = 'started'`);
  let before = await until(handle, { what: 'its start' });
  for (const statements of [
    [`BEGIN; SELECT bgw_unregister('again'); ${register}; COMMIT`],
    [`SELECT bgw_unregister('again')`, register],
  ]) {
    for (const statement of statements) await db.query(statement);
    await controller.saw('worker_exited', { handle: String(before) });
    before = await until(async () => ((await handle()) > before ? await handle() : undefined), { what: 'the new one' });
  }
  expect(await db.value(`SELECT count(*)::int FROM bgw_stat_activity WHERE name = 'again'`)).toBe(1);
});

test('what a definition has to have cannot be null', async ({ db }) => {
  for (const name of ['flags', 'start_time', 'mode', 'autostart', 'enabled', 'scope', 'failure_window', 'healthy_time'])
    await expect(db.query(`SELECT bgw_register('w', 'SELECT 1', ${name} => NULL)`)).rejects.toMatchObject({
      code: '22023',
      message: `worker "w": ${name} must not be null`,
    });
  await expect(db.query(`SELECT bgw_signal_set('nobody', 'FOO')`)).rejects.toMatchObject({ code: '22023' });
});
