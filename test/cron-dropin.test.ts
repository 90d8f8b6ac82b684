/**
 * Schema cron: what a script written for pg_cron finds.  Where Debian's pg_cron for PostgreSQL 15 is installed, the same
 * statements are run on the real one and the answers compared.
 */
import pg from 'pg';
import { afterAll, beforeAll, describe } from 'vitest';
import { importPgCron } from '../src/commands/import-pg-cron.ts';
import { connectionConfig } from '../src/connection.ts';
import { migrate } from '../src/migrate.ts';
import { expect, startController, test as base } from './support/controller.ts';
import { createDatabase, onServer, type TestDatabase } from './support/database.ts';
import { hasPgCron, JOBS, startPgCron, type PgCronServer } from './support/pg-cron.ts';
import { until } from './support/until.ts';

interface Fixtures {
  /** A database with schema cron, and two roles in whose name jobs may be stored, though nobody runs them. */
  cron: TestDatabase & { alice: string; bob: string };
}

const test = base.extend<Fixtures>({
  cron: async ({ db }, use) => {
    await migrate(await db.client(), { withCron: true });
    // Upper case: role names are compared as they are.
    const [alice, bob] = [`${db.name}_Alice`, `${db.name}_bob`];
    for (const role of [alice, bob]) {
      await db.query(`CREATE ROLE "${role}" LOGIN`);
      await db.query(`GRANT USAGE ON SCHEMA cron TO "${role}"`);
      await db.query(`INSERT INTO bgw.login (owner) SELECT oid FROM pg_roles WHERE rolname = $1`, [role]);
    }
    await use({ ...db, alice, bob });
    await db.query('RESET ROLE');
    for (const role of [alice, bob]) {
      await db.query(`DROP OWNED BY "${role}"`).catch(() => undefined);
      await db.query(`DROP ROLE IF EXISTS "${role}"`);
    }
  },
});

interface Session {
  query(sql: string): Promise<{ rows: Record<string, unknown>[]; rowCount: number | null }>;
}

/** What a statement answers: its first value, or its error as the client sees it. */
async function answer(client: Session, sql: string): Promise<unknown> {
  try {
    const { rows, rowCount } = await client.query(sql);
    return rows[0] === undefined ? rowCount : Object.values(rows[0])[0];
  } catch (error) {
    const { code, message, detail, hint } = error as Record<string, string | undefined>;
    return Object.fromEntries(
      Object.entries({ code, message, detail, hint }).filter(([, field]) => field !== undefined),
    );
  }
}

test('a job runs, and its runs are told in the words of pg_cron', async ({ cron, startController }) => {
  await cron.query('CREATE TABLE ran (at timestamptz DEFAULT now())');
  const commands = {
    query: 'SELECT 1; SELECT generate_series(1, 2)',
    one: 'SELECT 1',
    insert: 'INSERT INTO ran DEFAULT VALUES',
    utility: 'VACUUM ran',
    empty: '',
    fails: `DO $$ BEGIN RAISE 'boo' USING DETAIL = 'det', HINT = 'hi'; END $$`,
  };
  for (const [name, command] of Object.entries(commands))
    await cron.query(`SELECT cron.schedule($1, '1 second', $2)`, [name, command]);
  await startController();
  await until(async () => Number(await cron.value('SELECT count(DISTINCT jobid) FROM cron.job_run_details')) === 6);
  await until(
    async () => (await cron.value(`SELECT bool_and(end_time IS NOT NULL) FROM cron.job_run_details`)) === true,
  );
  const { rows } = await cron.query<{ jobname: string; told: string }>(
    `SELECT DISTINCT jobname, status || '|' || return_message AS told FROM cron.job_run_details AS run JOIN cron.job USING (jobid)
     WHERE job_pid IS NOT NULL AND run.command = job.command AND run.username = current_user AND run.database = current_database()`,
  );
  expect(Object.fromEntries(rows.map(({ jobname, told }) => [jobname, told]))).toEqual({
    query: 'succeeded|2 rows',
    one: 'succeeded|1 row',
    insert: 'succeeded|INSERT 0 1',
    utility: 'succeeded|VACUUM',
    empty: 'succeeded|0 rows',
    fails:
      'failed|ERROR:  boo\nDETAIL:  det\nHINT:  hi\nCONTEXT:  PL/pgSQL function inline_code_block line 1 at RAISE\n',
  });
  await cron.query('SELECT cron.unschedule(jobid) FROM cron.job');
  expect(await cron.value('SELECT count(*) FROM cron.job')).toBe(0n);
  // What was run stays, also of jobs that are gone.
  expect(await cron.value('SELECT count(DISTINCT jobid) FROM cron.job_run_details')).toBe(6n);
});

test('bgw migrate installs it once, upgrades it without being asked, and leaves a schema of others alone', async ({
  db,
}) => {
  const session = await db.client();
  expect(await migrate(session, { withCron: true })).toEqual({
    applied: ['000001-entry.sql', '000002-import.sql'],
    sqlLayer: 'applied',
  });
  expect(await migrate(session, { withCron: true })).toEqual({ applied: [], sqlLayer: 'unchanged' });
  await db.query(`UPDATE cron.sql_layer SET hash = 'old'`);
  expect(await migrate(session)).toEqual({ applied: [], sqlLayer: 'applied' });

  const foreign = await createDatabase({ template: 'template0' });
  await foreign.query('CREATE SCHEMA cron');
  await expect(migrate(await foreign.client(), { withCron: true })).rejects.toMatchObject({
    code: '42P06',
    message: 'schema "cron" already exists',
  });
  expect(await foreign.value(`SELECT to_regnamespace('bgw')`)).toBeNull();
  expect(await migrate(await foreign.client())).toMatchObject({ sqlLayer: 'applied' });
  await foreign.drop();
});

test('jobs are numbered from 1; a name again changes the job of its user and keeps the number', async ({ cron }) => {
  expect(await cron.value(`SELECT cron.schedule('0 3 * * *', 'VACUUM')`)).toBe(1n);
  expect(await cron.value(`SELECT cron.schedule('nightly', '0 3 * * *', 'VACUUM')`)).toBe(2n);
  const again = `SELECT cron.schedule('nightly', '0 4 * * *', 'ANALYZE')`;
  expect(await cron.value(again)).toBe(2n);
  const row =
    'SELECT xmin::text || ctid FROM bgw.schedule WHERE id = (SELECT schedule_id FROM cron.entry WHERE jobid = 2)';
  const before = await cron.value(row);
  expect(await cron.value(again)).toBe(2n);
  expect(await cron.value(row)).toBe(before);
  expect((await cron.query('SELECT * FROM cron.job WHERE jobid = 2')).rows).toEqual([
    {
      jobid: 2n,
      schedule: '0 4 * * *',
      command: 'ANALYZE',
      nodename: 'localhost',
      nodeport: Number(new URL(cron.url).port),
      database: cron.name,
      username: await cron.value('SELECT current_user'),
      active: true,
      jobname: 'nightly',
    },
  ]);
  // The same job under its other name.
  expect(
    (await cron.query(`SELECT timezone, on_overlap, on_missed FROM bgw_schedules WHERE name = 'cron 2: nightly'`)).rows,
  ).toEqual([{ timezone: 'UTC', on_overlap: 'queue one', on_missed: 'skip' }]);
  await cron.query(`SELECT bgw_pause('cron 2: nightly')`);
  expect(await cron.value('SELECT active FROM cron.job WHERE jobid = 2')).toBe(false);
  await cron.query(`SELECT bgw_unschedule('cron 2: nightly')`);
  expect(await cron.value('SELECT count(*) FROM cron.job WHERE jobid = 2')).toBe(0n);
  expect(Number(await cron.value(again))).toBeGreaterThan(2);
  expect(await cron.value(`SELECT cron.unschedule('nightly')`)).toBe(true);
});

test('a name again with another database moves the job there', async ({ cron, startController }) => {
  await cron.query('CREATE TABLE ran (at timestamptz DEFAULT now())');
  const schedule = (database: string): string =>
    `SELECT cron.schedule_in_database('ind', '1 second', 'INSERT INTO ran DEFAULT VALUES', '${database}', active => false)`;
  const where = `SELECT database || ' ' || active FROM cron.job`;
  const id = await cron.value(schedule('postgres'));
  expect(await cron.value(where)).toBe('postgres false');
  expect(await cron.value(schedule(cron.name))).toBe(id);
  expect(await cron.value(where)).toBe(`${cron.name} false`);
  await cron.query('UPDATE cron.job SET active = true');
  await startController();
  await until(async () => (await cron.value('SELECT count(*) FROM ran')) !== 0n);
  expect(await cron.value('SELECT DISTINCT database FROM cron.job_run_details')).toBe(cron.name);
  // cron.schedule means the database that it is called in.
  await cron.query(schedule('postgres'));
  expect(await cron.value(where)).toBe('postgres true');
  expect(await cron.value(`SELECT cron.schedule('ind', '@daily', 'SELECT 1')`)).toBe(id);
  expect(await cron.value(where)).toBe(`${cron.name} true`);
});

test('a job of every 1 SECOND runs', async ({ cron, startController }) => {
  await cron.query(`SELECT cron.schedule('loud', '1 SECOND', 'SELECT 1')`);
  await startController();
  await until(async () => (await cron.value('SELECT count(*) FROM cron.job_run_details')) !== 0n);
  expect(await cron.value('SELECT schedule FROM cron.job')).toBe('1 SECOND');
});

test('two sessions that come with the same name at once make one job', async ({ cron }) => {
  const [one, other] = [await cron.client(), await cron.client()];
  const define = `SELECT cron.schedule('same', '* * * * *', 'SELECT 1') AS id`;
  await one.query('BEGIN');
  const { rows } = await one.query<{ id: bigint }>(define);
  const second = other.query<{ id: bigint }>(define);
  await until(async () => (await cron.value(`SELECT count(*) FROM pg_locks WHERE NOT granted`)) !== 0n);
  await one.query('COMMIT');
  expect((await second).rows).toEqual(rows);
});

test('only what pg_cron takes is a schedule here, and the error is its own', async ({ cron }) => {
  const taken = [
    '1 second',
    '59 seconds',
    '5seconds',
    '10 SECONDS',
    '1 Second',
    '30SeConDs',
    '@reboot',
    '@DAILY',
    '@daily',
    '0 0 $ * *',
    '*/5 9-17 * jan mon-fri',
    ' 1 2  3 4 5 ',
  ];
  for (const schedule of taken) await cron.query('SELECT cron.schedule($1, $2)', [schedule, 'SELECT 1']);
  // Whatever the case, it is the same schedule.
  expect(await cron.value(`SELECT parsed[1]::bit(64)::bigint FROM bgw.schedule WHERE schedule = '10 SECONDS'`)).toBe(
    10n,
  );
  const refused = [
    '',
    '* * * *',
    '61 * * * *',
    '0 seconds',
    '60 seconds',
    '60 SECONDS',
    '1 minute',
    'every 5 seconds',
    '22-3 * * * *',
    '@every',
    '0 0 30 2 *',
  ];
  for (const schedule of refused) {
    expect(await answer(cron, `SELECT cron.schedule('${schedule}', 'SELECT 1')`)).toEqual({
      code: '22023',
      message: `invalid schedule: ${schedule}`,
      detail: expect.stringMatching(/\.$/),
      hint: "Use cron format (e.g. 5 4 * * *), or interval format '[1-59] seconds'",
    });
  }
});

test('a user sees and changes his own jobs only; naming another takes a superuser', async ({ cron }) => {
  const { alice, bob } = cron;
  const mine = await cron.value<bigint>(`SELECT cron.schedule('mine', '0 3 * * *', 'SELECT 1')`);
  const hers = await cron.value<bigint>(
    `SELECT cron.schedule_in_database('hers', '0 3 * * *', 'SELECT 1', current_database(), '${alice}')`,
  );
  await cron.query(`SET ROLE "${alice}"`);
  expect((await cron.query('SELECT jobid, username FROM cron.job')).rows).toEqual([{ jobid: hers, username: alice }]);
  expect(await answer(cron, `SELECT cron.unschedule(${mine})`)).toEqual({
    code: 'XX000',
    message: `could not find valid entry for job ${mine}`,
  });
  for (const denied of [
    `SELECT cron.alter_job(${hers}, active => false)`,
    `SELECT cron.schedule_in_database('x', '* * * * *', 'x', current_database())`,
    'UPDATE cron.job SET active = false',
    'DELETE FROM cron.job',
    `INSERT INTO cron.job (schedule, command) VALUES ('* * * * *', 'x')`,
  ])
    expect(await answer(cron, denied)).toMatchObject({ code: '42501' });
  expect(await cron.value(`SELECT cron.schedule('hers', '0 4 * * *', 'SELECT 2')`)).toBe(hers);

  await cron.query(`RESET ROLE`);
  await cron.query(
    `GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cron TO "${alice}"; GRANT UPDATE ON cron.job TO "${alice}"`,
  );
  await cron.query(`SET ROLE "${alice}"`);
  await cron.query(`SELECT cron.alter_job(${hers}, active => false, command => 'SELECT 3')`);
  expect((await cron.query('SELECT schedule, command, active FROM cron.job')).rows).toEqual([
    { schedule: '0 4 * * *', command: 'SELECT 3', active: false },
  ]);
  for (const [sql, message] of [
    [`cron.alter_job(${hers}, username => '${bob}')`, 'must be superuser to alter username'],
    [`cron.alter_job(${mine}, active => false)`, `Job ${mine} does not exist or you don't own it`],
    [
      `cron.schedule_in_database('x', '* * * * *', 'x', 'postgres', '${bob}')`,
      'must be superuser to create a job for another role',
    ],
  ])
    expect(await answer(cron, `SELECT ${sql}`)).toEqual({ code: 'XX000', message });
  expect(await answer(cron, `UPDATE cron.job SET username = '${bob}'`)).toMatchObject({ code: 'XX000' });
  expect(await answer(cron, 'UPDATE cron.job SET active = true')).toBe(1);

  await cron.query('RESET ROLE');
  await cron.query(`SELECT cron.alter_job(${hers}, username => '${bob}')`);
  expect(await cron.value(`SELECT string_agg(username, ' ' ORDER BY jobid) FROM cron.job`)).toMatch(
    new RegExp(` ${bob}$`),
  );
  expect(await answer(cron, `SELECT cron.unschedule('hers')`)).toMatchObject({
    message: expect.stringMatching(/'hers'$/),
  });
  expect(await cron.value(`SELECT cron.unschedule(${hers})`)).toBe(true);
});

test('a role or a database that no job can run with is refused', async ({ cron }) => {
  const closed = `${cron.name}_closed`;
  const group = `${cron.name}_group`;
  await onServer(`CREATE DATABASE ${closed} ALLOW_CONNECTIONS false`);
  await cron.query(`CREATE ROLE ${group}; REVOKE CONNECT ON DATABASE ${cron.name} FROM PUBLIC`);
  const job = (database: string, username: string): string =>
    `SELECT cron.schedule_in_database('x', '* * * * *', 'x', '${database}', ${username})`;
  try {
    expect(await answer(cron, job('nowhere', 'NULL'))).toEqual({
      code: '3D000',
      message: 'database "nowhere" does not exist',
    });
    expect(await answer(cron, job(closed, 'NULL'))).toMatchObject({ code: '55000' });
    expect(await answer(cron, job(cron.name, `'${cron.alice.toLowerCase()}'`))).toEqual({
      code: 'XX000',
      message: `role "${cron.alice.toLowerCase()}" does not exist`,
    });
    expect(await answer(cron, job(cron.name, `'${cron.alice}'`))).toEqual({
      code: 'XX000',
      message: `User ${cron.alice} does not have CONNECT privilege on ${cron.name}`,
    });
    expect(await answer(cron, job('postgres', `'${group}'`))).toMatchObject({
      message: `role "${group}" can not log in`,
    });
    await cron.query(`ALTER ROLE ${group} LOGIN`);
    expect(await answer(cron, job('postgres', `'${group}'`))).toMatchObject({ code: 'WK201' });
    expect(await cron.value('SELECT count(*) FROM cron.entry')).toBe(0n);
  } finally {
    await cron.query(`DROP ROLE ${group}`);
    await onServer(`UPDATE pg_database SET datallowconn = true WHERE datname = '${closed}'`);
    await onServer(`DROP DATABASE ${closed}`);
  }
});

test('what scripts write to the tables of pg_cron is done', async ({ cron, startController }) => {
  await startController();
  expect(
    (
      await cron.query(
        `INSERT INTO cron.job (schedule, command, nodename, nodeport, database, username, jobname)
         VALUES ('1 second', 'SELECT 1', '', 5432, current_database(), current_user, 'inserted') RETURNING jobid, active, nodename`,
      )
    ).rows,
  ).toEqual([{ jobid: 1n, active: true, nodename: 'localhost' }]);
  const ended = `SELECT count(*) FROM cron.job_run_details WHERE status = 'succeeded'`;
  await until(async () => (await cron.value(ended)) !== 0n);
  expect(await answer(cron, 'UPDATE cron.job SET active = false')).toBe(1);
  await until(async () => (await cron.value(`SELECT count(*) FROM bgw.process WHERE schedule_id IS NOT NULL`)) === 0n);
  expect(await answer(cron, `DELETE FROM cron.job_run_details WHERE end_time < now() - interval '7 days'`)).toBe(0);
  const runs = await cron.value<bigint>(ended);
  expect(await answer(cron, 'DELETE FROM cron.job_run_details WHERE end_time <= now()')).toBe(Number(runs));
  expect(await cron.value('SELECT count(*) FROM cron.job_run_details')).toBe(0n);
  // Only the view forgets them: a node never waits for the lock of a DELETE.
  expect(await cron.value('SELECT count(*) FROM bgw_run_history')).toBe(runs);
  await cron.query(`UPDATE cron.job SET schedule = '0 3 * * *', command = 'SELECT 2', active = true`);
  expect((await cron.query('SELECT schedule, command, active FROM cron.job')).rows).toEqual([
    { schedule: '0 3 * * *', command: 'SELECT 2', active: true },
  ]);
  expect(await answer(cron, `UPDATE cron.job SET jobname = 'x'`)).toMatchObject({ code: '0A000' });
  expect(await answer(cron, 'UPDATE cron.job SET command = NULL')).toMatchObject({ code: '22004' });
  expect(await answer(cron, `DELETE FROM cron.job WHERE jobname = 'inserted'`)).toBe(1);
});

test('INSERT INTO cron.job makes a job or says why not, and warns of what has no effect', async ({ cron }) => {
  const session = await cron.client();
  const notices: (string | undefined)[] = [];
  session.on('notice', ({ severity, message }) => notices.push(`${severity}: ${message}`));
  const insert = (columns: string, values: string): Promise<unknown> =>
    answer(
      session,
      `INSERT INTO cron.job (schedule, command, ${columns}) VALUES ('@daily', 'SELECT 2', ${values}) RETURNING jobid`,
    );
  expect(await insert('jobname, active', `'ind', false`)).toBe(1n);
  expect(await insert('jobname', `NULL`)).toBe(2n);
  expect(await insert('nodename, nodeport', `'localhost', ${new URL(cron.url).port}`)).toBe(3n);
  expect(notices).toEqual([]);

  const before = (await cron.query('SELECT * FROM cron.job ORDER BY jobid')).rows;
  const user = await cron.value<string>('SELECT current_user');
  expect(await insert('jobname, active, jobid', `'ind', true, 77`)).toEqual({
    code: '23505',
    message: 'duplicate key value violates unique constraint "jobname_username_uniq"',
    detail: `Key (jobname, username)=(ind, ${user}) already exists.`,
  });
  expect((await cron.query('SELECT * FROM cron.job ORDER BY jobid')).rows).toEqual(before);
  // The name of another user's job, and of a job that is gone, can be had.
  expect(await insert('jobname, username', `'ind', '${cron.alice}'`)).toEqual(expect.any(BigInt));
  await cron.query(`SELECT cron.unschedule('ind')`);
  expect(await insert('jobname', `'ind'`)).toEqual(expect.any(BigInt));
  expect(notices).toEqual([]);

  await insert('nodename', `'node1'`);
  await insert('nodeport', '5433');
  await insert('jobid', '77');
  const node = 'WARNING: nodename and nodeport have no effect';
  expect(notices).toEqual([node, node, 'WARNING: the given jobid has no effect']);
});

test('two sessions that insert the same name at once make one job', async ({ cron }) => {
  const [one, other] = [await cron.client(), await cron.client()];
  const insert = `INSERT INTO cron.job (jobname, schedule, command) VALUES ('same', '* * * * *', 'SELECT 1')`;
  await one.query('BEGIN');
  await one.query(insert);
  const second = answer(other, insert);
  await until(async () => (await cron.value(`SELECT count(*) FROM pg_locks WHERE NOT granted`)) !== 0n);
  await one.query('COMMIT');
  expect(await second).toMatchObject({ code: '23505' });
});

test('a job whose worker was unregistered runs when it is scheduled or altered again', async ({
  cron,
  startController,
}) => {
  await cron.query('CREATE TABLE ran (job text)');
  await startController();
  const command = (job: string): string => `INSERT INTO ran VALUES (''${job}'')`;
  const ran = async (job: string): Promise<boolean> =>
    (await cron.value(`SELECT count(*) FROM ran WHERE job = '${job}'`)) !== 0n;
  const workers = `SELECT count(*) FROM bgw.worker WHERE name LIKE 'cron %' AND NOT unregistered`;
  const id = await cron.value<bigint>(`SELECT cron.schedule('r1', '@yearly', '${command('before')}')`);
  await cron.query(`SELECT bgw_unregister('cron ${id}: r1')`);
  expect(await cron.value(`SELECT cron.schedule('r1', '1 second', '${command('again')}')`)).toBe(id);
  await until(() => ran('again'));
  expect(await cron.value(workers)).toBe(1n);

  // Also after nodes have deleted what is unregistered, with a worker of that name or without.
  await cron.query(`SELECT cron.alter_job(${id}, active => false)`);
  await until(async () => (await cron.value('SELECT count(*) FROM bgw.process WHERE schedule_id IS NOT NULL')) === 0n);
  for (const [job, between] of [
    ['deleted', 'SELECT 1'],
    ['registered', `SELECT bgw_register('cron ${id}: r1', 'SELECT 1')`],
  ] as const) {
    await cron.query(`SELECT cron.schedule('r1', '1 second', '${command(job)}')`);
    await cron.query(`SELECT bgw_unregister('cron ${id}: r1')`);
    await cron.query(`DELETE FROM bgw.worker WHERE unregistered`);
    await cron.query(between);
    expect((await cron.query('SELECT command, database FROM cron.job')).rows).toEqual([
      { command: `INSERT INTO ran VALUES ('${job}')`, database: cron.name },
    ]);
    await cron.query(`SELECT cron.alter_job(${id}, command => '${command(job)}', active => true)`);
    await until(() => ran(job));
    expect(await cron.value(workers)).toBe(1n);
    await cron.query(`SELECT cron.alter_job(${id}, active => false)`);
  }
});

test('jobs outlive the controller and a dropped role; stop => true ends what runs', async ({
  cron,
  startController,
}) => {
  await cron.query(
    `SELECT cron.schedule_in_database('orphan', '1 second', 'SELECT 1', current_database(), '${cron.bob}')`,
  );
  await cron.query(`SELECT cron.schedule('long', '1 second', 'SELECT pg_sleep(60)')`);
  await cron.query(`DROP OWNED BY "${cron.bob}"; DROP ROLE "${cron.bob}"`);
  const first = await startController();
  const running = `SELECT count(*) FROM cron.job_run_details WHERE status = 'running' AND job_pid IS NOT NULL`;
  await until(async () => (await cron.value(running)) === 1n);
  await first.stop();
  await cron.query(`SELECT cron.schedule('short', '1 second', 'SELECT 1')`);
  await startController();
  await until(async () => (await cron.value(running)) === 1n);
  await until(
    async () => (await cron.value(`SELECT count(*) FROM cron.job_run_details WHERE status = 'succeeded'`)) !== 0n,
  );
  expect(await cron.value(`SELECT waiting_for FROM bgw_schedules WHERE name = 'cron 1: orphan'`)).toMatch(
    /^role with OID \d+ does not exist$/,
  );
  expect(await cron.value(`SELECT username FROM cron.job WHERE jobid = 1`)).toMatch(/^unknown/);
  await cron.query(`SELECT bgw_unschedule('cron 2: long', stop => true)`);
  await until(async () => (await cron.value(running)) === 0n);
});

test('bgw import says what is missing: schema cron here, or pg_cron on the server', async ({ db }) => {
  const connection = connectionConfig({ url: db.url, env: {} });
  const run = (): Promise<void> => importPgCron({ connection, say: () => undefined });
  await expect(run()).rejects.toMatchObject({ code: 'WK303', hint: 'Run: bgw migrate --with-cron' });
  await migrate(await db.client(), { withCron: true });
  await expect(run()).rejects.toMatchObject({ code: '42704', message: 'this server does not run pg_cron' });
});

test('an ordinary role installs it and runs its jobs', async ({ ordinary }) => {
  const { db, role } = ordinary;
  const installer = new pg.Client(db.url);
  await installer.connect();
  await migrate(installer, { withCron: true });
  await installer.end();
  const node = await startController(db);
  await db.query(`SELECT cron.schedule('mine', '1 second', 'SELECT 1')`);
  const details = `SELECT username FROM cron.job_run_details WHERE return_message = '1 row' LIMIT 1`;
  await until(async () => (await db.value(details)) === role);
  expect(await answer(db, `SELECT cron.schedule_in_database('x', '* * * * *', 'x', NULL, '${role}')`)).toMatchObject({
    message: 'must be superuser to create a job for another role',
  });
  expect(await answer(db, 'UPDATE cron.job SET active = false')).toBe(1);
  await node.stop();
});

describe.skipIf(!hasPgCron)('beside the real pg_cron (skipped where it is not installed)', () => {
  let server: PgCronServer;
  let real: pg.Client;
  let ours: pg.Client;

  beforeAll(async () => {
    server = await startPgCron();
    ({ real, ours } = server);
  }, 30_000);

  afterAll(async () => {
    await server.stop();
  });

  test('functions, columns and rights are the same', async () => {
    const catalogs = {
      functions: `SELECT p.oid::regprocedure::text AS name, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result,
                         p.proisstrict AS strict, has_function_privilege('alice', p.oid, 'EXECUTE') AS may
                  FROM pg_proc AS p WHERE pronamespace = 'cron'::regnamespace AND proname ~ '^(schedule|schedule_in_database|alter_job|unschedule)$' ORDER BY 1`,
      columns: `SELECT attrelid::regclass::text AS relation, attname AS name, atttypid::regtype::text AS type FROM pg_attribute
                WHERE attrelid IN ('cron.job'::regclass, 'cron.job_run_details'::regclass) AND attnum > 0 ORDER BY 1, attnum`,
      rights: `SELECT relation, privilege, has_table_privilege('alice', 'cron.' || relation, privilege) AS may
               FROM unnest('{job,job_run_details}'::text[]) AS relation, unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS privilege ORDER BY 1, 2`,
    };
    for (const sql of Object.values(catalogs)) {
      const [theirs, mine] = [(await real.query(sql)).rows as object[], (await ours.query(sql)).rows as object[]];
      // 1.4 has type name where 1.6, and we, have text.
      const as16 = JSON.parse(
        JSON.stringify(theirs)
          .replace(/unschedule\(name\)/g, 'unschedule(text)')
          .replace('job_name name', 'job_name text')
          .replace('"jobname","type":"name"', '"jobname","type":"text"'),
      ) as object[];
      expect(mine).toEqual(as16);
    }
  });

  /** As superuser, then as a user; `JOB` is the newest job of this session's role. */
  const STATEMENTS = [
    `cron.schedule('* * * *', 'x')`,
    `cron.schedule('', 'x')`,
    `cron.schedule('61 * * * *', 'x')`,
    `cron.schedule('0 seconds', 'x')`,
    `cron.schedule('60 seconds', 'x')`,
    `cron.schedule('every 5 minutes', 'x')`,
    `cron.schedule('@every', 'x')`,
    `cron.schedule('*/0 * * * *', 'x')`,
    `cron.schedule('1,,2 * * * *', 'x')`,
    `cron.schedule('5/2 * * * *', 'x')`,
    `cron.schedule('0 0 * * 8', 'x')`,
    `cron.schedule('0 0 1 January *', 'x')`,
    `cron.schedule(NULL, 'x')`,
    `cron.schedule('* * * * *', NULL)`,
    `cron.schedule(NULL, '* * * * *', 'x')`,
    `cron.schedule('n', NULL, 'x')`,
    `cron.schedule('n', '* * * * *', NULL)`,
    `cron.schedule('n', '@reboot', 'x') > 0`,
    `cron.schedule('n', '0 0 1 jan SUN-TUE', 'y') = JOB`,
    `cron.schedule('', '*/5,10 * * * *', 'x') > 0`,
    `cron.schedule('@midnight', 'x') > 0`,
    `cron.schedule('0 0 * * 7', '') > 0`,
    `cron.schedule_in_database('d', '* * * * *', 'x', 'nowhere')`,
    `cron.schedule_in_database('d', '* * * * *', 'x', 'other', 'nobody')`,
    `cron.schedule_in_database('d', '* * * * *', 'x', 'other', 'alice')`,
    `cron.schedule_in_database('d', '* * * * *', 'x', 'other', 'staff')`,
    `cron.schedule_in_database('d', '* * * * *', 'x', 'postgres', 'bob')`,
    `cron.schedule_in_database('d', '* * * * *', 'x', 'postgres', NULL) > 0`,
    `cron.schedule_in_database('d', '1 * * * *', 'y', NULL, active => false) = JOB`,
    `cron.schedule_in_database('b', '1 * * * *', 'x', 'postgres', 'Bob', NULL) > 0`,
    `cron.alter_job(NULL)`,
    `cron.alter_job(999)`,
    `cron.alter_job(999, '* * * * *')`,
    `cron.alter_job(999, username => 'nobody')`,
    `cron.alter_job(JOB, 'x')`,
    `cron.alter_job(JOB, database => 'nowhere')`,
    `cron.alter_job(JOB, database => 'other')`,
    `cron.alter_job(JOB, username => 'nobody')`,
    `cron.alter_job(JOB, '2 * * * *', 'z', 'postgres', active => false)`,
    `cron.unschedule(999)`,
    `cron.unschedule('nope')`,
    `cron.unschedule(NULL::bigint)`,
    `cron.unschedule('n')`,
    `cron.unschedule('b')`,
  ];
  test('the same statements get the same answers', async () => {
    for (const client of [real, ours])
      await client.query(`CREATE FUNCTION pg_temp.newest() RETURNS bigint LANGUAGE sql
                          AS 'SELECT max(jobid) FROM cron.job WHERE username = current_user'`);
    for (const role of ['postgres', 'alice', 'granted']) {
      for (const client of [real, ours]) {
        if (role === 'granted') await client.query('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cron TO "Bob"');
        await client.query(role === 'postgres' ? 'RESET ROLE' : `SET ROLE ${role === 'alice' ? 'alice' : '"Bob"'}`);
      }
      for (const statement of STATEMENTS) {
        const sql = `SELECT ${statement.replace('JOB', 'pg_temp.newest()')}`;
        const [theirs, mine] = [await answer(real, sql), await answer(ours, sql)];
        expect({ role, sql, ...asReal(mine) }).toEqual({ role, sql, ...asReal(theirs) });
      }
      // cron.schedule takes the database that it is called in.
      const jobs = JOBS.replace('database', `replace(database, 'dropin', 'postgres') AS database`);
      expect((await ours.query(jobs)).rows).toEqual((await real.query(jobs)).rows);
      for (const client of [real, ours]) await client.query('RESET ROLE');
    }
  });

  test('an INSERT of a name that is there gets the same answer', async () => {
    const insert = `INSERT INTO cron.job (jobname, schedule, command, nodeport) VALUES ('twice', '@daily', 'x', 5432)`;
    const answers = await Promise.all(
      [real, ours].map(async (client) => [await answer(client, insert), await answer(client, insert)]),
    );
    expect(answers[0]).toEqual([1, expect.objectContaining({ code: '23505' })]);
    expect(answers[1]).toEqual(answers[0]);
  });

  test('the real one is left alone by bgw migrate --with-cron', async () => {
    await expect(migrate(real, { withCron: true })).rejects.toMatchObject({
      code: '42P06',
      message: 'extension "pg_cron" is installed in this database',
    });
    expect(await answer(real, `SELECT to_regnamespace('bgw')`)).toBeNull();
  });

  /** 1.4 gives no hint with a bad schedule, and we add the reason. */
  function asReal(answered: unknown): object {
    if (typeof answered !== 'object' || answered === null) return { answered };
    const { code, message, detail, hint } = answered as Record<string, unknown>;
    return code === '22023' ? { code, message } : { code, message, detail, hint };
  }
});
