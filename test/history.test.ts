/** How much history there is: bounded by number beside the seven days, whatever is launched. */
import { expect, test } from './support/database.ts';

const FILL = `INSERT INTO bgw.run (id, process_id, worker_id, name, owner, status, queued_at, finished_at)
  SELECT nextval('bgw.run_id'), n, $2, 'bench', bgw.current_owner(), 'done', at, at
  FROM (SELECT n, clock_timestamp() AS at FROM generate_series(1, $1::int) AS n) AS history`;

test('the history keeps the newest 1,000 runs of a worker and some 100,000 one-shots', async ({ db }) => {
  await db.query(FILL, [151_500, null]);
  await db.query(FILL, [1500, 1]);
  await db.query(FILL, [100, null]); // nobody else is among the last hundred
  const newest = await db.value<bigint>('SELECT max(id) FROM bgw.run');
  await db.query(`UPDATE bgw.duty SET due_at = '-infinity'`);
  await db.query('SELECT bgw.keep_house()');
  expect(
    await db.value(`SELECT due_at < now() + interval '30 s' FROM bgw.duty WHERE name = 'keep_house'`),
    'more than one turn may take is left',
  ).toBe(true);
  for (let turn = 0; turn < 3; turn += 1) {
    await db.query(`UPDATE bgw.duty SET due_at = '-infinity'`);
    await db.query('SELECT bgw.keep_house()');
  }
  const { rows } = await db.query(
    `SELECT worker_id, count(*)::int BETWEEN 100000 AND 102000 AS a_hundred_thousand, count(*)::int = 1000 AS a_thousand, max(id) AS newest
     FROM bgw.run GROUP BY worker_id ORDER BY worker_id`,
  );
  expect(rows).toEqual([
    { worker_id: 1n, a_hundred_thousand: false, a_thousand: true, newest: newest - 100n },
    { worker_id: null, a_hundred_thousand: true, a_thousand: false, newest },
  ]);
  expect(await db.value(`SELECT due_at > now() + interval '30 s' FROM bgw.duty WHERE name = 'keep_house'`)).toBe(true);
});

test('days of another time zone are no obstacle: what they leave goes to the default partition', async ({ db }) => {
  await db.query('SELECT bgw.keep_house()');
  const day = (ahead: number): Promise<string> =>
    db.value(`SELECT to_char((clock_timestamp() AT TIME ZONE 'UTC')::date + $1::int, 'YYYYMMDD')`, [ahead]);
  const [today, next, last] = await Promise.all([day(0), day(1), day(2)]);
  await db.query(`DROP TABLE bgw.run_${today}, bgw.run_${next}, bgw.run_${last}`);
  await db.query(
    `CREATE TABLE bgw.run_${today} PARTITION OF bgw.run FOR VALUES FROM ('${today} 05:00Z') TO ('${next} 05:00Z')`,
  );
  await db.query(`UPDATE bgw.duty SET due_at = '-infinity'`);
  await db.query('SELECT bgw.keep_house()');
  expect(await db.value(`SELECT to_regclass('bgw.run_${next}') IS NULL`), 'it overlaps').toBe(true);
  expect(await db.value(`SELECT to_regclass('bgw.run_${last}') IS NULL`)).toBe(false);
});

test('a partition belongs to the owner of the history, whoever made it', async ({ db }) => {
  const member = `${db.name}_member`;
  const owner = await db.value<string>('SELECT current_user');
  await db.query(`CREATE ROLE ${member} SUPERUSER`);
  try {
    await db.query(`SET ROLE ${member}`);
    await db.query(`SELECT bgw.partition_by_day('run', 'finished_at', '2030-01-01')`);
    const owners = `SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class WHERE relname LIKE 'run_203001%'`;
    expect((await db.query(owners)).rows).toEqual([{ pg_get_userbyid: owner }]);
  } finally {
    await db.query('RESET ROLE');
    await db.query(`DROP ROLE ${member}`);
  }
});
