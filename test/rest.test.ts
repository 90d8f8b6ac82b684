/** A node rests while no process is registered: its polls lock and write nothing, and its lease is longer (decision 14). */
import { expect, spawnController, test } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

interface Member {
  nodeId: bigint;
  epoch: number;
}

/** Joins a node, whose control session is that of the test, and polls until it rests. */
async function restingNode(db: TestDatabase, name = 'n'): Promise<Member> {
  const { rows } = await db.query(`SELECT node_id AS "nodeId", epoch FROM bgw.join_node($1, '{}', 8)`, [name]);
  const node = rows[0] as Member;
  await poll(db, node);
  expect(await leaseOf(db, node)).toBe(90);
  return node;
}

async function poll(db: TestDatabase, { nodeId, epoch }: Member, isPoll = true): Promise<string> {
  return db.value('SELECT bgw.take_orders($1, $2, 8, is_poll => $3)::text', [nodeId, epoch, isPoll]);
}

/** Seconds, as they were when it was written. */
async function leaseOf(db: TestDatabase, { nodeId }: Member): Promise<number> {
  const left = `date_part('epoch', lease_until - clock_timestamp())`;
  return db.value(`SELECT CASE WHEN ${left} > 15 THEN 90 ELSE 15 END FROM bgw.node WHERE id = $1`, [nodeId]);
}

/** Whether that poll wrote or locked anything. */
async function writes(db: TestDatabase, node: Member): Promise<boolean> {
  await db.query('BEGIN');
  await poll(db, node);
  const wrote = await db.value<boolean>('SELECT pg_current_xact_id_if_assigned() IS NOT NULL');
  await db.query('COMMIT');
  return wrote;
}

const isResting = 'SELECT count(*)::int FROM bgw.node WHERE bgw.is_resting(lease_until)';

test('nodes at rest write nothing, until the lease is nearly over', async ({ db }) => {
  const [one, other] = [await restingNode(db, 'one'), await restingNode(db, 'other')];
  await db.query(`SELECT bgw_register('w', 'SELECT 1'), bgw_schedule('s', '1 hour', 'SELECT 1')`);
  await poll(db, one); // notes the schedule
  expect([await writes(db, one), await writes(db, other)]).toEqual([false, false]);
  await db.query(`UPDATE bgw.node SET lease_until = clock_timestamp() + interval '14 s'`);
  expect([await writes(db, one), await writes(db, one)]).toEqual([true, false]);
  expect(await leaseOf(db, one)).toBe(90);
  expect(await leaseOf(db, other)).toBe(15);
});

test('what a node has to do ends its rest, and its lease is the shorter one before it claims', async ({ db }) => {
  const node = await restingNode(db);
  await db.query(`SELECT bgw_launch_sql('SELECT 1')`);
  expect(await poll(db, node)).toContain('"kind":"start"');
  expect(await leaseOf(db, node)).toBe(15);
  await poll(db, node);
  expect(await leaseOf(db, node), 'a process is registered').toBe(15);
});

test.for([
  ['it calls for something else', `SELECT 1`, false],
  ['somebody has missed its control session', `UPDATE bgw.node SET control_gone_since = now()`, true],
  ['the clock was set back', `UPDATE bgw.node SET lease_until = now() + interval '1 h'`, true],
  ['a minute is over', `UPDATE bgw.duty SET due_at = now()`, true],
  ['a schedule is due', `SELECT bgw_schedule('s', '1 hour', 'SELECT 1')`, true],
] as const)('a node at rest renews its lease when %s', async ([, statement, isPoll], { db }) => {
  const node = await restingNode(db);
  await db.query(statement);
  const row = `SELECT xmin::text FROM bgw.node`;
  const before = await db.value(row);
  await poll(db, node, isPoll);
  expect(await db.value(row)).not.toBe(before);
  expect(await db.value('SELECT control_gone_since FROM bgw.node')).toBeNull();
});

test('a node that is fenced while it rests is told so at its next poll (I6)', async ({ db }) => {
  const node = await restingNode(db);
  await db.query('UPDATE bgw.node SET epoch = epoch + 1, fenced = true');
  await expect(poll(db, node)).rejects.toMatchObject({ code: 'WK001' });
});

test('a node at rest whose control session is gone is alive for nobody; one with workers is, for the length of its lease', async ({
  db,
}) => {
  const node = await restingNode(db);
  const seen = async (): Promise<unknown[]> => [
    await db.value('SELECT status FROM bgw_nodes'),
    await db.value('SELECT bgw.has_live_node()'),
  ];
  expect(await seen()).toEqual(['running', true]);
  await db.query('SET ROLE pg_signal_backend');
  expect(await seen(), 'anybody may ask').toEqual(['running', true]);
  await db.query('RESET ROLE');
  const pid = await db.value<number>('SELECT control_pid FROM bgw.node');
  await db.query('UPDATE bgw.node SET control_pid = 0');
  expect(await seen()).toEqual(['lease over', false]);
  await db.query('UPDATE bgw.node SET control_pid = $1', [pid]);
  await poll(db, node, false);
  await db.query('UPDATE bgw.node SET control_pid = 0');
  expect(await seen()).toEqual(['running', true]);
});

test('a controller that is killed while it rests is missed at once, and the next one starts what a server would', async ({
  db,
  startController,
}) => {
  const killed = await spawnController(db);
  await db.query(`SELECT bgw_register('starter', 'SELECT 1', autostart => true)`);
  await until(async () => (await db.value('SELECT count(*)::int FROM bgw_run_history')) === 1);
  await until(async () => (await db.value(isResting)) === 1, { what: 'rest' });
  await killed.end('SIGKILL');
  await until(async () => (await db.value('SELECT status FROM bgw_nodes')) === 'lease over');
  const handle = await db.value('SELECT bgw_launch_sql($$SELECT 1$$)');
  expect(await db.value('SELECT waiting_for FROM bgw_stat_activity WHERE handle = $1', [handle])).toMatch(
    /none is running/,
  );
  const next = await startController();
  await next.saw('worker_started', { name: 'starter' });
  await next.saw('worker_started', { handle: String(handle) });
});

test('a node at rest whose control session is away for a moment is there all the same: who joins then is not the first', async ({
  db,
}) => {
  await db.query(`SELECT bgw_register('starter', 'SELECT 1', autostart => true)`);
  const first = await db.client();
  const { rows } = await first.query(`SELECT node_id AS id, epoch FROM bgw.join_node('first', '{}', 8)`);
  const { id, epoch } = rows[0];
  await db.query('SELECT bgw_terminate(id) FROM bgw.process');
  for (let turn = 0; turn < 2; turn += 1) await first.query('SELECT bgw.take_orders($1, $2, 8)', [id, epoch]);
  expect(await db.value(isResting)).toBe(1);
  await first.end();
  await until(() => db.value('SELECT NOT bgw.has_live_node()'));
  const second = await db.client();
  const joined = second.query(`SELECT bgw.join_node('second', '{}', 8)`);
  const waits = `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep')`;
  await until(() => db.value(waits), { what: 'the one who joins to wait' });
  await db.query('SELECT bgw.resume_node($1, $2, $3)', [id, epoch, []]);
  await joined;
  expect(await db.value('SELECT count(*)::int FROM bgw_nodes WHERE status = $1', ['running'])).toBe(2);
  expect(await db.value('SELECT count(*)::int FROM bgw.process')).toBe(0);
  await second.end();
});
