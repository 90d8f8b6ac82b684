/**
 * Beside an old snapshot, which keeps what was deleted: control functions find processes by their handles, and do not walk what is dead,
 * also where the planner believes that there is one process only.
 */
import { connectionConfig } from '../src/connection.ts';
import { openControlSession } from '../src/sessions/control-session.ts';
import { expect, test } from './support/database.ts';

const DEAD = 30_000;
const MANY = 1000;

test('a thousand signals take no walk each', async ({ db }) => {
  const old = await db.client();
  await old.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  await old.query('SELECT 1');
  await db.query(`SELECT bgw_launch_sql('SELECT 1') FROM generate_series(1, ${DEAD})`);
  await db.query('DELETE FROM bgw.process');
  await db.query(`SELECT bgw_launch_sql('SELECT 1')`);
  await db.query(
    `INSERT INTO bgw.signal (process_id, signal) SELECT n, 'SIGHUP' FROM generate_series(1, ${MANY}) AS n`,
  );
  await db.query('DELETE FROM bgw.signal');
  await db.query('VACUUM ANALYZE bgw.process, bgw.signal');
  expect(await db.value(`SELECT reltuples::int FROM pg_class WHERE oid = 'bgw.process'::regclass`)).toBe(1);
  const { client } = await openControlSession(connectionConfig({ url: db.url, env: {} }));
  try {
    await client.query(`SET statement_timeout = '4s'`);
    const send = `INSERT INTO bgw.signal (process_id, signal) SELECT n, 'SIGHUP' FROM generate_series(1, ${MANY}) AS n`;
    await db.query(send);
    await client.query('SELECT bgw.deliver_signals(1)');
    await client.query('SELECT bgw.trim()');
    expect(await db.value('SELECT count(*)::int FROM bgw.signal')).toBe(0);
  } finally {
    await client.end();
  }
});
