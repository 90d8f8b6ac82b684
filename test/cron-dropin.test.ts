/**
 * Schema cron: what a script written for pg_cron finds.  Where Debian's pg_cron for PostgreSQL 15 is installed, the same
 * statements are run on the real one and the answers compared.
 */
import { migrate } from '../src/migrate.ts';
import { expect, test as base } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
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
