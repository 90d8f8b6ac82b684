/** The two ways to settle the end of an attempt: what settle_plain_exits takes, settle_exits would leave in the same state. */
import { expect, test } from './support/database.ts';
import type { TestDatabase } from './support/database.ts';

const DONE = { exit_code: 0, done: true, age: 20, ran_ms: 10, session_pid: 4711, command_tag: 'INSERT 0 2', rows: 2 };

/** Claims what was launched; the clock stands still from then on. */
async function claim(db: TestDatabase, launch: string): Promise<void> {
  await db.query(launch);
  const { rows } = await db.query(`SELECT node_id, epoch FROM bgw.join_node('n', '{}', 8)`);
  await db.query('SELECT bgw.take_orders($1, $2, 8)', [rows[0]?.['node_id'], rows[0]?.['epoch']]);
  expect(await db.value('SELECT count(*)::int FROM bgw.process WHERE run_id IS NOT NULL')).toBe(1);
  await db.query(`SELECT set_config('bgw.fake_now', clock_timestamp()::text, false)`);
}

/** What that function answers when the attempt has ended so, and what it leaves; it is taken back. */
async function settle(
  db: TestDatabase,
  by: 'settle_plain_exits' | 'settle_exits',
  ending: object,
): Promise<{ answer: unknown; left: unknown }> {
  await db.query('BEGIN');
  const answer = await db.value(
    `SELECT bgw.${by}(jsonb_agg(jsonb_build_object('handle', id, 'run_id', run_id) || $1)) FROM bgw.process WHERE run_id IS NOT NULL`,
    [ending],
  );
  const left = await db.value(
    `SELECT json_build_object('runs', (SELECT json_agg(run) FROM bgw.run), 'processes', (SELECT json_agg(process) FROM bgw.process),
                              'completed', (SELECT count(*) FROM bgw.completed_run))`,
  );
  await db.query('ROLLBACK');
  return { answer, left };
}

test.for([
  ['a command', `SELECT bgw_launch_sql('SELECT 1')`],
  [
    'one with all that it can have',
    `SELECT bgw_launch_sql('SELECT 1', name => 'n', main_arg => '{"a": 1}', set => 's', key => 'k', timeout => '1 h', database => current_database())`,
  ],
  ['one of mode atomic', `SELECT bgw_launch_sql('SELECT 1', mode => 'atomic')`],
])('both ways leave the same of what is done: %s', async ([, launch = ''], { db }) => {
  await claim(db, launch);
  await db.query(`INSERT INTO bgw.completed_run (run_id) SELECT run_id FROM bgw.process WHERE mode = 'atomic'`);
  for (const ending of [DONE, { ...DONE, session_pid: null, command_tag: null, rows: null, ran_ms: null }]) {
    const { answer, left } = await settle(db, 'settle_plain_exits', ending);
    expect(answer).toBe(true);
    expect(left).toMatchObject({ runs: [{ status: 'done', rows: ending.rows }], processes: null, completed: 0 });
    expect((await settle(db, 'settle_exits', ending)).left).toEqual(left);
  }
});

const LAUNCH = `SELECT bgw_launch_sql('SELECT 1')`;

test.for<{ what: string; launch?: string; change?: string; ending?: object }>([
  { what: 'one that failed', ending: { exit_code: 1, done: false } },
  { what: 'one that was ended', ending: { done: false } },
  { what: 'one of a worker', launch: `SELECT bgw_register('w', 'SELECT 1'); SELECT bgw_launch('w')` },
  { what: 'one of a schedule', launch: `SELECT bgw_schedule('s', '1 day', 'SELECT 1'); SELECT bgw_run_now('s')` },
  { what: 'one whose launcher is to be told', launch: `SELECT bgw_launch_sql('SELECT 1', notify => 'told')` },
  { what: 'one that is to stop', change: 'UPDATE bgw.process SET stop_requested_at = now()' },
  { what: 'one that is to start again', change: 'UPDATE bgw.process SET restart_requested = true' },
  {
    what: 'one that has launched another',
    change: `INSERT INTO bgw.process (name, command, parent_id) SELECT 'child', 'SELECT 1', id FROM bgw.process`,
  },
])('is left to the other way: $what', async ({ launch = LAUNCH, change = '', ending }, { db }) => {
  await claim(db, launch);
  await db.query(change);
  const { answer, left } = await settle(db, 'settle_plain_exits', { ...DONE, ...ending });
  expect(answer).toBe(false);
  expect(left).toMatchObject({ runs: null, processes: expect.arrayContaining([expect.anything()]) });
});
