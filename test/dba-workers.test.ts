/** Workers for the DBA, each on a database of its own: reindex_invalid, disk_guard, table_stats. */
import { expect, test } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

async function said(db: TestDatabase, name: string, pattern: string): Promise<string> {
  return until(
    () =>
      db.value<string>('SELECT message FROM bgw_log WHERE name = $1 AND message ~ $2 ORDER BY id LIMIT 1', [
        name,
        pattern,
      ]),
    { what: `a line of ${name} like ${pattern}` },
  );
}

const invalid = `SELECT string_agg(indexrelid::regclass::text, ' ' ORDER BY indexrelid) FROM pg_index WHERE NOT indisvalid`;

test('reindex_invalid rebuilds what is invalid, drops leftovers, and goes on after a failure', async ({
  db,
  controller,
}) => {
  await db.query(
    `SELECT bgw_set_config('reindex_invalid.naptime', '1s'), bgw_set_config('reindex_invalid.dry_run', 'on')`,
  );
  await db.query(
    'CREATE TABLE good (n int); CREATE TABLE bad (n int); INSERT INTO good VALUES (1), (1); INSERT INTO bad VALUES (2), (2)',
  );
  await expect(db.query('CREATE UNIQUE INDEX CONCURRENTLY "Good Index" ON good (n)')).rejects.toMatchObject({
    code: '23505',
  });
  await expect(db.query('CREATE UNIQUE INDEX CONCURRENTLY bad_index ON bad (n)')).rejects.toMatchObject({
    code: '23505',
  });
  expect(await db.value(invalid)).toBe('"Good Index" bad_index');
  await db.query('DELETE FROM good WHERE ctid = (SELECT min(ctid) FROM good)');

  const handle = await db.value<bigint>(`SELECT bgw_launch('reindex_invalid')`);
  await said(db, 'reindex_invalid', '^would run: REINDEX INDEX CONCURRENTLY public."Good Index"$');
  expect(await db.value(invalid)).toBe('"Good Index" bad_index');
  await db.query(`SELECT bgw_set_config('reindex_invalid.dry_run', 'off'), bgw_restart($1::bigint)`, [handle]);
  await said(db, 'reindex_invalid', '^done: REINDEX INDEX CONCURRENTLY public."Good Index"$');
  expect(await said(db, 'reindex_invalid', '^failed: REINDEX INDEX CONCURRENTLY public.bad_index: ')).toContain(
    'could not create unique index',
  );
  // What the failed REINDEX has left behind is no index of anybody's.
  await until(async () => !String(await db.value(invalid)).includes('Good'));
  expect(await db.value(`SELECT sqlstate FROM bgw_log WHERE message ~ '^failed'`)).toBe('23505');
  expect(controller.observations.some(({ kind }) => kind === 'unexpected_error')).toBe(false);
});

test('reindex_invalid drops what a failed REINDEX CONCURRENTLY left beside a good index, and touches nothing that is worked at', async ({
  db,
  controller,
}) => {
  await db.query(`SELECT bgw_set_config('reindex_invalid.naptime', '1s')`);
  await db.query('CREATE TABLE item (n int); CREATE INDEX item_n ON item (n); CREATE INDEX item_n_ccnew ON item (n)');
  await db.query(`UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'item_n_ccnew'::regclass`);
  const busy = await db.client();
  await busy.query('BEGIN; LOCK TABLE item IN SHARE UPDATE EXCLUSIVE MODE');
  const handle = await db.value<bigint>(`SELECT bgw_launch('reindex_invalid')`);
  await controller.saw('worker_started', { handle: String(handle) });
  await until(() => db.value(`SELECT state = 'idle' FROM bgw_stat_activity WHERE handle = $1`, [handle]));
  expect(await db.value(invalid)).toBe('item_n_ccnew');
  await busy.query('COMMIT');
  await said(db, 'reindex_invalid', '^done: DROP INDEX CONCURRENTLY public.item_n_ccnew$');
  expect(await db.value(`SELECT to_regclass('item_n_ccnew') IS NULL AND to_regclass('item_n') IS NOT NULL`)).toBe(true);
});

test('disk_guard warns at the first threshold and acts once at the second, by quota and by disk', async ({
  db,
  controller,
}) => {
  await db.query('CREATE TABLE acted (n serial)');
  await db.query(`SELECT bgw_set_config('disk_guard.naptime', '1s'), bgw_set_config('disk_guard.action', 'INSERT INTO acted DEFAULT VALUES'),
                         bgw_set_config('disk_guard.quota', '1TB')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('disk_guard')`);
  await controller.saw('worker_started', { handle: String(handle) });
  await db.query(`SELECT bgw_set_config('disk_guard.warn_below', '100')`);
  expect(await said(db, 'disk_guard', 'is free$')).toMatch(/^\d+\.\d\d % of the quota is free$/);
  expect(await db.value('SELECT count(*) FROM acted')).toBe(0n);
  await db.query(`SELECT bgw_set_config('disk_guard.quota', '1MB')`);
  await until(async () => (await db.value('SELECT count(*) FROM acted')) === 1n);
  // Space comes back and goes again: the action has another turn; a failing one is logged and tried again.
  await db.query(`SELECT bgw_set_config('disk_guard.quota', '1TB'), bgw_set_config('disk_guard.warn_below', '0')`);
  await until(() =>
    db.value(
      `SELECT EXISTS (SELECT FROM bgw_log WHERE name = 'disk_guard' AND severity = 'LOG' AND message ~ 'free$')`,
    ),
  );
  await db.query(
    `SELECT bgw_set_config('disk_guard.action', 'SELECT 1 / 0'), bgw_set_config('disk_guard.quota', '1MB')`,
  );
  await said(db, 'disk_guard', '^disk_guard.action failed: division by zero');
  expect(await db.value('SELECT count(*) FROM acted')).toBe(1n);

  await db.query(`SELECT bgw_terminate($1::bigint)`, [handle]);
  await db.query(`CALL bgw_wait_for_shutdown($1)`, [handle]);
  await db.query(`SELECT bgw_reset_all_config()`);
  await db.query(`SELECT bgw_set_config('disk_guard.warn_below', '100')`);
  await db.query(`SELECT bgw_launch('disk_guard')`);
  expect(await said(db, 'disk_guard', 'of the disk')).toMatch(/^\d+\.\d\d % of the disk of the server is free$/);
});

test('table_stats samples tables, shows their growth, and keeps no more than its retention', async ({
  db,
  controller,
}) => {
  await db.query(
    'CREATE TABLE grows AS SELECT n FROM generate_series(1, 1000) AS n; CREATE TABLE held (n int); ANALYZE grows',
  );
  await db.query(`SELECT bgw_set_config('table_stats.naptime', '1s')`);
  const holder = await db.client();
  await holder.query('BEGIN; LOCK TABLE held');
  await db.query(`SELECT bgw_launch('table_stats')`);
  await until(() => db.value(`SELECT EXISTS (SELECT FROM bgw_table_stats WHERE relname = 'grows')`));
  await db.query('INSERT INTO grows SELECT generate_series(1, 10000)');
  await until(() => db.value(`SELECT growth_bytes > 100000 FROM bgw_table_stats WHERE relname = 'grows'`));
  expect(await db.value(`SELECT count(*) FROM bgw.table_sample WHERE relname = 'held'`)).toBe(0n);
  await holder.query('COMMIT');
  await until(() => db.value(`SELECT EXISTS (SELECT FROM bgw_table_stats WHERE relname = 'held')`));
  expect(await db.value(`SELECT count(*) FROM bgw.table_sample WHERE schemaname IN ('bgw', 'pg_catalog')`)).toBe(0n);
  await db.query(
    `INSERT INTO bgw.table_sample (sampled_at, relid, schemaname, relname) VALUES (now() - interval '31 days', 1, 'old', 'old')`,
  );
  await until(() => db.value(`SELECT NOT EXISTS (SELECT FROM bgw.table_sample WHERE relname = 'old')`));
  expect(controller.observations.some(({ kind }) => kind === 'unexpected_error')).toBe(false);
});
