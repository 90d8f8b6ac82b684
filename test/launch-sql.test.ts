/** bgw_launch_sql: any SQL, once, in the background; and what its history says. */
import { expect, test } from './support/controller.ts';
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
      'queued_at, started_at, finished_at, main_arg',
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
});

test('mode atomic commits the effect and its completion together (I4)', async ({ db, controller }) => {
  await db.query('CREATE TABLE item (n int)');
  expect(await run(db, 'INSERT INTO item VALUES (1)', `, mode => 'atomic'`)).toMatchObject({
    status: 'done',
    rows: 1n,
  });
  expect(
    await db.value(`SELECT (SELECT xmin FROM item)::text = (SELECT xmin FROM bgw.run)::text`),
    'effect and history were written by one transaction',
  ).toBe(true);
  expect(controller.observations.filter(({ kind }) => kind === 'worker_exited')).toHaveLength(1);
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
  expect(await db.value('SELECT count(*)::int FROM item')).toBe(0);
});

test('an atomic command that fails at commit leaves nothing, and says why', async ({ db, controller }) => {
  expect(controller.observations.length).toBeGreaterThan(0);
  await db.query('CREATE TABLE item (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)');
  expect(await run(db, 'INSERT INTO item VALUES (1), (1)', `, mode => 'atomic'`)).toMatchObject({
    status: 'failed',
    sqlstate: '23505',
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
  await db.query('CREATE TABLE seen (what text)');
  const first = await run(
    db,
    `SET work_mem = '1MB'; CREATE TEMPORARY TABLE left_behind (n int); SELECT pg_advisory_lock(1); LISTEN x; BEGIN`,
  );
  const second = await run(
    db,
    `INSERT INTO seen SELECT current_setting('work_mem') UNION ALL SELECT to_regclass('left_behind')::text
     UNION ALL SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() UNION ALL SELECT pg_listening_channels()`,
  );
  expect([first.status, second.status]).toEqual(['done', 'done']);
  const { rows } = await db.query('SELECT what FROM seen');
  expect(rows.map(({ what }) => what)).toEqual([await db.value('SHOW work_mem'), null, '0']);
});

test('what a command returns and says does not fill the memory of the controller (I13)', async ({ db, controller }) => {
  expect(controller.observations.length).toBeGreaterThan(0);
  const before = process.memoryUsage().rss;
  expect(await run(db, 'SELECT * FROM generate_series(1, 2000000)')).toMatchObject({
    status: 'done',
    rows: 2_000_000n,
  });
  expect(await run(db, `SELECT repeat('x', 300000000)`)).toMatchObject({ status: 'done' });
  const raised = await run(db, `DO $$ BEGIN RAISE EXCEPTION '%', repeat('é', 10000000); END $$`);
  expect(raised.message?.length).toBeLessThan(10_000);
  expect(await run(db, `DO $$ BEGIN FOR i IN 1..50000 LOOP RAISE NOTICE 'line %', i; END LOOP; END $$`)).toMatchObject({
    status: 'done',
  });
  expect(process.memoryUsage().rss - before).toBeLessThan(300 * 2 ** 20);
  await until(() => db.value(`SELECT count(*) > 0 FROM bgw_log WHERE message LIKE '%log lines were dropped%'`));
});

test('COPY FROM STDIN is an error, and its session is not lost', async ({ db, controller }) => {
  await db.query('CREATE TABLE item (n int)');
  expect(await run(db, 'COPY item FROM STDIN')).toMatchObject({ status: 'failed', sqlstate: '0A000' });
  expect(await run(db, 'COPY item TO STDOUT')).toMatchObject({ status: 'done', command_tag: 'COPY 0' });
  expect(controller.observations.some(({ kind }) => kind === 'connection_lost')).toBe(false);
});
