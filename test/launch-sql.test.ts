/** bgw_launch_sql: any SQL, once, in the background; and what its history says. */
import { Socket } from 'node:net';
import { connectionConfig } from '../src/connection.ts';
import { Session } from '../src/sessions/session.ts';
import { expect, spawnController, startController, test } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

interface RunRow {
  status: string;
  exit_code: number | null;
  command_tag: string | null;
  rows: bigint | null;
  sqlstate: string | null;
  message: string | null;
  detail: string | null;
  hint: string | null;
  context: string | null;
}

/** Launches the command and returns its row of the history. */
async function run(db: TestDatabase, command: string, options = ''): Promise<RunRow> {
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql($1${options})`, [command]);
  await db.query(`CALL bgw_wait_for_shutdown($1, '20 s')`, [handle]);
  const { rows } = await db.query<RunRow>('SELECT * FROM bgw_run_history WHERE handle = $1', [handle]);
  expect(rows).toHaveLength(1);
  return rows[0] as RunRow;
}

test('the history has the columns that it promises', async ({ db }) => {
  const { fields } = await db.query('SELECT * FROM bgw_run_history');
  expect(fields.map(({ name }) => name).join(', ')).toBe(
    'run_id, handle, name, owner, node, pid, status, exit_code, command_tag, rows, sqlstate, message, detail, hint, context, ' +
      'queued_at, started_at, finished_at, main_arg, gave_up, due_at, worker_set, key',
  );
});

test('mode session runs what cannot run in a transaction', async ({ db, controller }) => {
  expect(controller.observations.length).toBeGreaterThan(0);
  await db.query('CREATE TABLE item (n int)');
  await db.query(
    'CREATE PROCEDURE two_commits() LANGUAGE plpgsql AS $$BEGIN INSERT INTO item VALUES (1); COMMIT; INSERT INTO item VALUES (2); COMMIT; END$$',
  );
  expect(await run(db, 'CREATE INDEX CONCURRENTLY ON item (n)', `, mode => 'session'`)).toMatchObject({
    status: 'done',
    command_tag: 'CREATE INDEX',
  });
  expect(await run(db, 'VACUUM item')).toMatchObject({ status: 'done', command_tag: 'VACUUM' });
  expect(await run(db, 'CALL two_commits()')).toMatchObject({ status: 'done', command_tag: 'CALL' });
  expect(await run(db, 'INSERT INTO item SELECT generate_series(1, 5)')).toMatchObject({
    command_tag: 'INSERT 0 5',
    rows: 5n,
    exit_code: 0,
  });
  expect(await db.value('SELECT count(*)::int FROM item')).toBe(7);
  expect(await run(db, 'INSERT INTO item VALUES (8); SELECT 1 / 0')).toMatchObject({
    status: 'failed',
    command_tag: null,
    rows: null,
  });
  expect(await db.value('SELECT count(*)::int FROM item'), 'rolled back, as in psql').toBe(7);
});

test('mode atomic commits the effect and its completion together (I4)', async ({ db, controller }) => {
  await db.query('CREATE TABLE item (n int)');
  // Wherever they are written: in which transaction.
  await db.query('CREATE TABLE written (what text, xid bigint)');
  await db.query(
    `CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.written VALUES (TG_TABLE_NAME, pg_catalog.txid_current()); RETURN NULL; END$$`,
  );
  for (const table of ['item', 'bgw.completed_run'])
    await db.query(`CREATE TRIGGER note AFTER INSERT ON ${table} EXECUTE FUNCTION note()`);
  expect(await run(db, 'INSERT INTO item VALUES (1)', `, mode => 'atomic'`)).toMatchObject({
    status: 'done',
    command_tag: 'INSERT 0 1',
    rows: 1n,
  });
  const { rows } = await db.query('SELECT array_agg(what ORDER BY what) AS what FROM written GROUP BY xid');
  expect(rows, 'effect and completion were written by one transaction').toEqual([{ what: ['completed_run', 'item'] }]);
  expect(await db.value('SELECT count(*)::int FROM bgw.completed_run'), 'taken away with the history').toBe(0);
  await controller.saw('worker_exited');
  expect(controller.observations.filter(({ kind }) => kind === 'worker_exited')).toHaveLength(1);
});

test('an atomic run that has committed is done, though its node died before it could say so (I4)', async ({ db }) => {
  await db.query('CREATE TABLE item (n int)');
  const node = await spawnController(db);
  await db.query('SELECT pg_advisory_lock(1)');
  const command = 'SELECT pg_advisory_xact_lock(1); INSERT INTO item VALUES (1)';
  await db.query('SELECT bgw_launch_sql($1, mode => $2)', [command, 'atomic']);
  await until(() => db.value(`SELECT EXISTS (SELECT FROM bgw.process WHERE status = 'started' AND pid IS NOT NULL)`));
  // It commits, and the report of its node waits.
  await db.query('BEGIN; LOCK TABLE bgw.process IN EXCLUSIVE MODE; SELECT pg_advisory_unlock(1)');
  const other = await db.client();
  await until(async () => (await other.query('SELECT FROM item')).rowCount === 1, { what: 'the effect' });
  await node.end('SIGKILL');
  await other.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bgw control'`,
  );
  await db.query('COMMIT');
  const next = await startController(db);
  await until(() => db.value('SELECT NOT EXISTS (SELECT FROM bgw.process)'), { what: 'the takeover' });
  expect((await db.query('SELECT status, exit_code, message FROM bgw_run_history')).rows).toEqual([
    { status: 'done', exit_code: 0, message: null },
  ]);
  expect(await db.value('SELECT count(*)::int FROM item')).toBe(1);
  expect(await db.value('SELECT count(*)::int FROM bgw.completed_run')).toBe(0);
  await next.stop();
});

test.for(['session', 'atomic'])(
  'a run that ended while the control session was lost is not run again, mode %s',
  async (mode, { db, controller }) => {
    await db.query('CREATE TABLE item (n int)');
    await controller.saw('took_orders'); // it has kept house, which would wait as well
    // It ends, and the report of its end waits.
    await db.query('BEGIN; LOCK TABLE bgw.run IN EXCLUSIVE MODE');
    const other = await db.client();
    await other.query(`SELECT bgw_launch_sql('INSERT INTO item VALUES (1)', mode => $1)`, [mode]);
    await controller.saw('worker_exited');
    const control = `FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bgw control'`;
    await until(async () => (await other.query(`SELECT 1 ${control} AND wait_event_type = 'Lock'`)).rowCount === 1);
    await other.query(`SELECT pg_terminate_backend(pid) ${control}`);
    await until(async () => (await other.query(`SELECT 1 ${control} AND wait_event_type = 'Lock'`)).rowCount === 0);
    await db.query('COMMIT');
    await until(() => db.value('SELECT NOT EXISTS (SELECT FROM bgw.process)'), { what: 'its end' });
    expect(await db.value('SELECT count(*)::int FROM item')).toBe(1);
    expect((await db.query('SELECT status FROM bgw_run_history')).rows).toEqual([{ status: 'done' }]);
  },
);

test('a controller of before completed_run ends atomic runs as well (I4)', async ({ db }) => {
  const { rows } = await db.query(`SELECT * FROM bgw.join_node('old', '{}', 8)`);
  const { node_id: node, epoch } = rows[0];
  await db.query(`SELECT bgw_launch_sql('SELECT 1', mode => 'atomic')`);
  const taken = await db.value<{ orders: { handle: string; run_id: string }[][] }>(
    'SELECT bgw.take_orders($1, $2, 8)',
    [node, epoch],
  );
  const { handle, run_id } = taken.orders.flat()[0] ?? { handle: '', run_id: '' };
  const complete = (transaction: string): Promise<unknown> =>
    db.query(`SELECT bgw.complete_run(${handle}, ${run_id}, ${transaction}, true, 'SELECT 1', 1)`);
  await db.query('BEGIN; SELECT txid_current()');
  await expect(complete('1')).rejects.toMatchObject({ code: '2D000' });
  await db.query('ROLLBACK; BEGIN; SELECT txid_current()');
  await complete('txid_current()');
  await db.query('COMMIT');
  const lost = { exited: [{ handle, run_id, exit_code: 1, undecided: true, age: 0 }] };
  await db.query('SELECT bgw.report($1, $2, $3)', [node, epoch, JSON.stringify(lost)]);
  expect(await db.value('SELECT status FROM bgw_run_history')).toBe('done');
  await db.query('SELECT bgw.leave_node($1, $2)', [node, epoch]);
});

test('an atomic command that ends its transaction by itself is refused', async ({ db, controller }) => {
  expect(controller.observations.length).toBeGreaterThan(0);
  await db.query('CREATE TABLE item (n int)');
  expect(
    await run(db, 'INSERT INTO item VALUES (1); ROLLBACK; BEGIN; INSERT INTO item VALUES (2)', `, mode => 'atomic'`),
  ).toMatchObject({
    status: 'failed',
    sqlstate: '2D000',
  });
  // Nor does one that commits leave anything; a savepoint, and the body of a function, end nothing.
  for (const command of [
    'INSERT INTO item VALUES (1); COMMIT',
    'INSERT INTO item VALUES (1); /* ; */ end; INSERT INTO item VALUES (2)',
    `INSERT INTO item VALUES (1); PREPARE TRANSACTION 'x'`,
  ])
    expect(await run(db, command, `, mode => 'atomic'`)).toMatchObject({ status: 'failed', sqlstate: '2D000' });
  expect(await db.value('SELECT count(*)::int FROM item')).toBe(0);
  const savepoint = `SAVEPOINT s; INSERT INTO item VALUES (3); ROLLBACK TO s; INSERT INTO item SELECT length('; COMMIT')`;
  expect(await run(db, savepoint, `, mode => 'atomic'`)).toMatchObject({ status: 'done' });
  expect(await db.value('SELECT array_agg(n) FROM item')).toEqual([8]);
});

test('an atomic call of a procedure that commits is refused, and leaves nothing (I4)', async ({ db, controller }) => {
  expect(controller.observations.length).toBeGreaterThan(0);
  await db.query('CREATE TABLE item (n int)');
  await db.query(
    'CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$BEGIN INSERT INTO item VALUES (1); COMMIT; INSERT INTO item VALUES (2); END$$',
  );
  expect(await run(db, 'CALL commits()', `, mode => 'atomic'`)).toMatchObject({ status: 'failed', sqlstate: '2D000' });
  expect(await db.value('SELECT count(*)::int FROM item')).toBe(0);
});

test.for([true, false])(
  'an atomic command whose transaction could not begin does not run, one of many: %s (I4)',
  async (isOneOfMany, { db }) => {
    await db.query('CREATE TABLE item (n int)');
    // What is sent arrives with a BEGIN that fails, as one that is cancelled does.
    const stream = (): Socket => {
      const socket = new Socket();
      socket.once('connect', () => {
        const write = socket.write.bind(socket);
        socket.write = (data: Uint8Array | string): boolean =>
          write(
            Buffer.from(data as Uint8Array)
              .toString('latin1')
              .replace('BEGIN;', 'BEGUN;'),
            'latin1',
          );
      });
      return socket;
    };
    const connection = { ...connectionConfig({ url: db.url, env: {} }), stream };
    const registry = { registerSession: () => Promise.resolve('') };
    const session = await Session.open(connection, { settings: [], names: {} }, registry);
    for (const text of ['DO $$ BEGIN INSERT INTO item VALUES (1); END $$', 'INSERT INTO item VALUES (2)']) {
      const outcome = await session.run({
        before: ['BEGIN'],
        names: { 'bgw.handle': '1' },
        settings: [],
        command: { text },
        after: ['SELECT 1', 'COMMIT'],
        isOneOfMany,
      });
      expect(outcome.error).toMatchObject({ code: '42601' });
      expect(await session.reset()).toBe(true);
    }
    await session.close();
    expect(await db.value('SELECT count(*)::int FROM item')).toBe(0);
  },
);

test('an atomic run whose backend dies leaves nothing and is not run again (I4)', async ({ db, controller }) => {
  await db.query('CREATE TABLE item (n int)');
  const command = 'INSERT INTO item VALUES (1); SELECT pg_terminate_backend(pg_backend_pid())';
  expect(await run(db, command, `, mode => 'atomic'`)).toMatchObject({
    status: 'failed',
    sqlstate: '57P01',
    command_tag: null,
  });
  expect(await db.value('SELECT count(*)::int FROM item')).toBe(0);
  expect(controller.observations.filter(({ kind }) => kind === 'worker_started')).toHaveLength(1);
  // Nor could it commit any more.
  const voided = 'INSERT INTO bgw.completed_run (run_id) SELECT run_id FROM bgw_run_history';
  await expect(db.query(voided)).rejects.toMatchObject({ code: '23505' });
});

test('an atomic command that fails at commit leaves nothing, and says why', async ({ db, controller }) => {
  expect(controller.observations.length).toBeGreaterThan(0);
  await db.query('CREATE TABLE item (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)');
  expect(await run(db, 'INSERT INTO item VALUES (1), (1)', `, mode => 'atomic'`)).toMatchObject({
    status: 'failed',
    sqlstate: '23505',
    command_tag: null,
  });
  expect(await db.value('SELECT count(*)::int FROM item')).toBe(0);
});

test('an error is kept with all that PostgreSQL said', async ({ db, controller }) => {
  const command = `DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'TE001', DETAIL = 'a detail', HINT = 'a hint'; END $$`;
  expect(await run(db, command)).toMatchObject({
    status: 'failed',
    exit_code: 1,
    sqlstate: 'TE001',
    message: 'no',
    detail: 'a detail',
    hint: 'a hint',
    context: expect.stringContaining('PL/pgSQL function inline_code_block line 1 at RAISE'),
  });
  await until(() => db.value(`SELECT count(*) > 0 FROM bgw_log WHERE severity = 'ERROR' AND sqlstate = 'TE001'`));
  expect(controller.observations.some(({ kind }) => kind === 'connection_lost')).toBe(false);
});

test('a timeout is enforced from outside, also against a command that sets its own', async ({ db, controller }) => {
  expect(controller.observations.length).toBeGreaterThan(0);
  const command = `DO $$ BEGIN SET statement_timeout = 0; PERFORM pg_sleep(600); END $$`;
  expect(await run(db, command, `, timeout => '100 ms'`)).toMatchObject({ status: 'expired', sqlstate: '57014' });
});

test('the longest timeout is not over at once, a longer one is refused', async ({ db, controller }) => {
  expect(controller.observations.length).toBeGreaterThan(0);
  const warnings: string[] = [];
  const listen = (warning: Error): unknown => warnings.push(warning.name);
  process.on('warning', listen);
  expect(await run(db, 'SELECT pg_sleep(0.2)', `, timeout => '24 days'`)).toMatchObject({ status: 'done' });
  process.off('warning', listen);
  // Node.js takes a timer of more than 24.8 days for one of 1 ms, and says so; such a cancel may come before its statement.
  expect(warnings).not.toContain('TimeoutOverflowWarning');
  await expect(db.query(`SELECT bgw_launch_sql('SELECT 1', timeout => '60 days')`)).rejects.toMatchObject({
    code: '22023',
  });
});

test('a database that does not exist is waited for, and another one is used', async ({ db, controller }) => {
  expect(controller.observations.length).toBeGreaterThan(0);
  const other = `${db.name}_other`;
  const handle = await db.value<bigint>('SELECT bgw_launch_sql($1, database => $2)', [
    'CREATE TABLE here (n int)',
    other,
  ]);
  expect(await db.value('SELECT waiting_for FROM bgw_stat_activity WHERE handle = $1', [handle])).toBe(
    `database "${other}" does not exist or accepts no connections`,
  );
  await db.query(`CREATE DATABASE ${other}`);
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  expect(await db.value('SELECT status FROM bgw_run_history WHERE handle = $1', [handle])).toBe('done');
  await db.query(`DROP DATABASE ${other} WITH (FORCE)`);
});

test('a command runs in another database that exists; mode atomic works in this one only', async ({
  db,
  controller,
}) => {
  expect(controller.observations.length).toBeGreaterThan(0);
  const where = `DO $$ BEGIN RAISE EXCEPTION 'in %', current_database(); END $$`;
  expect((await run(db, where, `, database => 'postgres'`)).message).toBe('in postgres');
  expect((await run(db, where, `, database => current_database()`)).message).toBe(`in ${db.name}`);
  await expect(
    db.query(`SELECT bgw_launch_sql('SELECT 1', mode => 'atomic', database => 'postgres')`),
  ).rejects.toMatchObject({ code: '0A000' });
});

test('what cannot be is refused', async ({ db }) => {
  for (const call of [
    `bgw_launch_sql('SELECT 1', name => '')`,
    `bgw_launch_sql('SELECT 1', name => E'two\\nlines')`,
    `bgw_launch_sql('SELECT 1', timeout => '-1 s')`,
    `bgw_launch_sql(NULL)`,
    `bgw_launch_sql('SELECT 1', mode => 'both')`,
  ]) {
    await expect(db.query(`SELECT ${call}`), call).rejects.toMatchObject({ code: '22023' });
  }
});

test('a run finds a session as new: nothing of the run before is left in it', async ({ db, startController }) => {
  await startController({ maxWorkerProcesses: 1 });
  await db.query('CREATE TABLE seen (pid int DEFAULT pg_backend_pid(), what text)');
  const runs = [
    `SET work_mem = '1MB'; SET search_path = nowhere; SET ROLE pg_monitor; CREATE TEMPORARY TABLE left_behind (n int);
     SELECT pg_advisory_lock(1); LISTEN x; PREPARE left_over AS SELECT 1`,
    `BEGIN; INSERT INTO seen (what) VALUES ('not committed'); SET work_mem = '2MB'`,
    `INSERT INTO seen (what) SELECT current_setting('work_mem') UNION ALL SELECT current_setting('search_path')
     UNION ALL SELECT current_user UNION ALL SELECT to_regclass('left_behind')::text
     UNION ALL SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
     UNION ALL SELECT name FROM pg_prepared_statements UNION ALL SELECT pg_listening_channels()`,
  ];
  for (const command of runs) expect(await run(db, command)).toMatchObject({ status: 'done' });
  const { rows } = await db.query('SELECT what FROM seen');
  const { rows: asNew } = await db.query(
    `SELECT current_setting('work_mem') AS memory, current_setting('search_path') AS path, current_user::text AS role`,
  );
  expect(rows.map(({ what }) => what)).toEqual([asNew[0].memory, asNew[0].path, asNew[0].role, null, '0']);
  expect(await db.value('SELECT count(DISTINCT pid)::int FROM bgw_run_history'), 'one session ran them all').toBe(1);
});

/** The most memory that this process, which is the controller, has had beyond what it had before. */
async function growth(work: () => Promise<void>): Promise<number> {
  const before = process.memoryUsage().rss;
  let most = before;
  const sampler = setInterval(() => (most = Math.max(most, process.memoryUsage().rss)), 10);
  try {
    await work();
  } finally {
    clearInterval(sampler);
  }
  return most - before;
}

test('what a command returns and raises does not fill the memory of the controller (I13)', async ({
  db,
  controller,
}) => {
  expect(controller.observations.length).toBeGreaterThan(0);
  const grown = await growth(async () => {
    expect(await run(db, 'SELECT * FROM generate_series(1, 3000000)')).toMatchObject({
      status: 'done',
      rows: 3_000_000n,
    });
    expect(await run(db, `SELECT repeat('x', 300000000)`)).toMatchObject({ status: 'done', rows: 1n });
    const raised = await run(db, `DO $$ BEGIN RAISE EXCEPTION '%', repeat('é', 10000000); END $$`);
    expect(raised).toMatchObject({ status: 'failed', sqlstate: 'P0001', message: expect.stringMatching(/^é+ /) });
    expect(raised.message?.length).toBeLessThan(10_000);
  });
  expect(grown).toBeLessThan(200 * 2 ** 20);
});

test('a command that says much fills neither the memory of the controller nor bgw_log (I13)', async ({
  db,
  controller,
}) => {
  expect(controller.observations.length).toBeGreaterThan(0);
  const grown = await growth(async () => {
    const shout = `DO $$ BEGIN FOR i IN 1..100000 LOOP RAISE NOTICE 'line %', i; END LOOP; END $$`;
    expect(await run(db, shout)).toMatchObject({ status: 'done' });
  });
  expect(grown).toBeLessThan(200 * 2 ** 20);
  const lines = `SELECT (SELECT count(*) FROM bgw_log WHERE message LIKE 'line %')
                      + (SELECT sum(substring(message, '^(\\d+) log lines were dropped')::int) FROM bgw_log)`;
  await until(async () => Number(await db.value(lines)) >= 100_000, { what: 'every line kept or counted' });
  await db.query(`UPDATE bgw.duty SET due_at = '-infinity'`);
  await until(() => db.value('SELECT count(*) <= 10000 FROM bgw_log'), { what: 'a log of 10,000 lines' });
});

test('COPY FROM STDIN is an error, and its session is not lost', async ({ db, controller }) => {
  await db.query('CREATE TABLE item (n int)');
  expect(await run(db, 'COPY item FROM STDIN')).toMatchObject({ status: 'failed', sqlstate: '0A000' });
  expect(await run(db, 'COPY item TO STDOUT')).toMatchObject({ status: 'done', command_tag: 'COPY 0' });
  expect(controller.observations.some(({ kind }) => kind === 'connection_lost')).toBe(false);
});

test('a command that leaves its transaction open is told that it is rolled back', async ({ db, controller }) => {
  await db.query('CREATE TABLE t (n int)');
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('BEGIN; INSERT INTO t VALUES (1)', name => 'open')`);
  const said = await controller.saw('worker_said', { name: 'open' });
  expect(said).toMatchObject({ severity: 'WARNING', error: { code: '25000' } });
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  expect(await db.value('SELECT count(*)::int FROM t')).toBe(0);
});

test('an atomic run that leaves another role behind fails, and is told what to do', async ({ db, controller }) => {
  expect(controller.observations.length).toBeGreaterThan(0);
  await db.query('CREATE TABLE item (n int)');
  const result = await run(db, 'INSERT INTO item VALUES (1); SET ROLE pg_monitor', `, mode => 'atomic'`);
  expect(result).toMatchObject({ status: 'failed', sqlstate: '42501' });
  expect(await db.value('SELECT hint FROM bgw_log WHERE hint IS NOT NULL')).toBe('End it with RESET ROLE.');
  expect(await db.value('SELECT count(*)::int FROM item')).toBe(0);
});
