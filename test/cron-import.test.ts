/** bgw import pg_cron, from a real one: what a first import brings, and what one after it does.  Skipped without pg_cron. */
import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { importPgCron } from '../src/commands/import-pg-cron.ts';
import { connectionConfig } from '../src/connection.ts';
import { hasPgCron, JOBS, startPgCron, type PgCronServer } from './support/pg-cron.ts';

describe.skipIf(!hasPgCron)('bgw import pg_cron', () => {
  let server: PgCronServer;
  let real: pg.Client;
  let ours: pg.Client;

  beforeAll(async () => {
    server = await startPgCron();
    ({ real, ours } = server);
  }, 30_000);

  beforeEach(async () => {
    for (const client of [real, ours]) await client.query('DELETE FROM cron.job');
  });

  afterAll(async () => {
    await server.stop();
  });

  async function run(options: { from?: string; skipRefused?: boolean } = {}): Promise<string[]> {
    const lines: string[] = [];
    const to = (database: string): pg.ClientConfig => connectionConfig({ url: server.url(database), env: {} });
    const from = options.from === undefined ? undefined : to(options.from);
    await importPgCron({ ...options, connection: to('dropin'), from, say: (line) => lines.push(line) });
    return lines;
  }

  async function jobs(client: pg.Client): Promise<unknown[]> {
    const { rows } = await client.query<object>(JOBS);
    return rows;
  }

  async function value(client: pg.Client, sql: string): Promise<unknown> {
    const { rows } = await client.query<object>(sql);
    return Object.values(rows[0] ?? {})[0];
  }

  const unchanged = (count: number): string[] => [`${count} jobs: 0 imported, 0 refused, the others are here already`];

  test('copies the jobs, all or none, and run again it changes nothing', async () => {
    await real.query(`
      SELECT cron.schedule('@daily', 'VACUUM');
      SELECT cron.schedule('@daily', 'VACUUM');
      SELECT cron.schedule_in_database('nightly', '0 3 * * *', 'ANALYZE', 'dropin', 'alice', false);
      SELECT cron.schedule_in_database('nightly', '0 4 * * *', 'ANALYZE', 'postgres', 'Bob');
      SELECT cron.schedule_in_database('stranger', '0 5 * * *', 'SELECT 1', 'postgres', 'carol')`);
    await expect(run()).rejects.toMatchObject({
      code: '55000',
      message: 'could not import 1 of 5 jobs, so none was imported',
      detail: expect.stringMatching(/^job \d+ "stranger" of role "carol": .*there is no login for role "carol"/),
    });
    expect(await jobs(ours)).toEqual([]);

    expect(await run({ skipRefused: true })).toHaveLength(6);
    await real.query(`DELETE FROM cron.job WHERE username = 'carol'`);
    expect(await jobs(ours)).toEqual(await jobs(real));
    expect(await run({ from: 'postgres' })).toEqual(unchanged(4));
    expect(await jobs(ours)).toEqual(await jobs(real));

    await expect(run({ from: 'dropin' })).rejects.toMatchObject({ code: '42704' });
    await real.query(
      `INSERT INTO cron.job (schedule, command, nodename, nodeport) VALUES ('@daily', 'x', 'far.example', 5432)`,
    );
    await expect(run()).rejects.toMatchObject({ detail: expect.stringMatching(/another server$/) });
  });

  test('a job is known again by its number there, whatever was changed of it', async () => {
    await real.query(`
      SELECT cron.schedule('0 5 * * *', 'VACUUM');
      SELECT cron.schedule('0 5 * * *', 'VACUUM');
      SELECT cron.schedule('0 6 * * *', 'ANALYZE');
      SELECT cron.schedule_in_database('nightly', '0 3 * * *', 'ANALYZE', 'postgres', 'alice', false);
      SELECT cron.schedule_in_database('weekly', '0 4 * * 0', 'SELECT 1', 'postgres', 'alice')`);
    await run();
    await real.query(`
      UPDATE cron.job SET schedule = '0 7 * * *' WHERE jobid = (SELECT min(jobid) FROM cron.job);
      UPDATE cron.job SET command = 'ANALYZE pg_class', database = 'dropin', jobname = 'named' WHERE command = 'ANALYZE' AND jobname IS NULL;
      UPDATE cron.job SET jobname = 'moved', username = 'Bob', active = true WHERE jobname = 'nightly';
      UPDATE cron.job SET jobname = 'nightly' WHERE jobname = 'weekly'`);
    const lines = await run();
    expect(lines.map((line) => line.replace(/\d+/, 'N'))).toEqual([
      'changed job N of role "postgres"',
      'changed job N "named" of role "postgres"',
      'changed job N "moved" of role "Bob"',
      'changed job N "nightly" of role "alice"',
      'N jobs: 4 imported, 0 refused, the others are here already',
    ]);
    expect(await jobs(ours)).toEqual(await jobs(real));
    expect(await run()).toEqual(unchanged(5));
    // The schedule and its worker have the new name too.
    await ours.query(`SELECT bgw_unschedule(name) FROM bgw_schedules WHERE name LIKE 'cron %: moved'`);
    expect(await value(ours, `SELECT count(*)::int FROM cron.job`)).toBe(4);
    expect(
      await value(ours, `SELECT count(*)::int FROM bgw.worker WHERE name LIKE 'cron %: moved' AND NOT unregistered`),
    ).toBe(0);
  });

  test('jobs that were set inactive there after they were imported stay active here', async () => {
    await real.query(`
      SELECT cron.schedule('0 5 * * *', 'VACUUM');
      SELECT cron.schedule('nightly', '0 3 * * *', 'ANALYZE');
      SELECT cron.schedule('paused', '0 4 * * *', 'ANALYZE')`);
    await run();
    const active = `SELECT array_agg(active ORDER BY jobid) FROM cron.job`;
    await ours.query(`UPDATE cron.job SET active = false WHERE jobname = 'paused'`);
    await real.query('UPDATE cron.job SET active = false');
    expect(await run()).toEqual(unchanged(3));
    expect(await value(ours, active)).toEqual([true, true, false]);
    await real.query(`UPDATE cron.job SET schedule = '0 8 * * *'`);
    expect(await run()).toHaveLength(4);
    expect(await value(ours, active)).toEqual([true, true, false]);
    expect(await value(ours, `SELECT count(*)::int FROM cron.job WHERE schedule = '0 8 * * *'`)).toBe(3);
    // Nor is one switched on that was switched off here.
    await real.query('UPDATE cron.job SET active = true');
    expect(await run()).toEqual(unchanged(3));
    expect(await value(ours, active)).toEqual([true, true, false]);
  });

  test('what was changed here stays, and a job that was made anew there is the same job', async () => {
    await ours.query(`SELECT cron.schedule_in_database('mine', '0 1 * * *', 'SELECT 1', 'postgres')`);
    await real.query(`
      SELECT cron.schedule('mine', '0 2 * * *', 'SELECT 1');
      SELECT cron.schedule('0 5 * * *', 'VACUUM');
      SELECT cron.schedule('nightly', '0 3 * * *', 'ANALYZE')`);
    expect((await run())[0]).toMatch(/^changed job \d+ "mine"/);
    await ours.query(`UPDATE cron.job SET schedule = '0 9 * * *' WHERE jobname = 'nightly'`);
    await real.query(`
      SELECT cron.unschedule('nightly');
      SELECT cron.schedule('nightly', '0 3 * * *', 'ANALYZE pg_class');
      SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname IS NULL;
      SELECT cron.schedule('0 5 * * *', 'VACUUM')`);
    const changed = await run();
    expect(changed).toHaveLength(2);
    expect(changed[0]).toMatch(/^changed job \d+ "nightly"/);
    const { rows } = await ours.query(`SELECT schedule, command, jobname FROM cron.job ORDER BY jobid`);
    expect(rows).toEqual([
      { schedule: '0 2 * * *', command: 'SELECT 1', jobname: 'mine' },
      { schedule: '0 5 * * *', command: 'VACUUM', jobname: null },
      { schedule: '0 9 * * *', command: 'ANALYZE pg_class', jobname: 'nightly' },
    ]);
  });
});
