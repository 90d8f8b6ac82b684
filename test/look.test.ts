/** What a node sees that there is to do (bgw.look): a chore that it does not see is never done. */
import { expect, test } from './support/database.ts';
import type { TestDatabase } from './support/database.ts';

/** Joins a node; resolves to its parameters for the control functions. */
async function joinNode(db: TestDatabase): Promise<{ nodeId: bigint; epoch: number }> {
  const { rows } = await db.query(`SELECT node_id AS "nodeId", epoch FROM bgw.join_node('n', '{}', 8)`);
  return rows[0] as { nodeId: bigint; epoch: number };
}

const WORKER = `SELECT bgw_register('w', 'SELECT 1')`;
const LAUNCH = `SELECT bgw_launch_sql('SELECT 1')`;
const OTHER_NODE = `SELECT bgw.join_node('m', '{}', 8)`;
const other = (set: string): string => `UPDATE bgw.node SET ${set} WHERE name = 'm'`;
const SCHEDULE = `INSERT INTO bgw.schedule_state (schedule_id, starts_at) VALUES (1, clock_timestamp() + interval`;

/** What there is, what a node sees of it, and for how many seconds it may sleep if not for two. */
const SITUATIONS: [string, string[], string[], number?][] = [
  ['nothing', [], [], 4],
  ['another node', [OTHER_NODE], [], 4],
  ['a node whose lease is over', [OTHER_NODE, other(`lease_until = now() - interval '1 s'`)], ['others'], 4],
  ['a node whose control session is gone', [OTHER_NODE, other(`control_pid = 0`)], ['others'], 4],
  ['a node that is fenced', [OTHER_NODE, other(`fenced = true`)], ['others'], 4],
  ['a node of another server', [OTHER_NODE, other(`timeline = 'x'`)], ['others'], 4],
  ['a minute is over', [`UPDATE bgw.duty SET due_at = now()`], ['house'], 4],
  ['a schedule that was written', [`SELECT bgw_schedule('s', '1 hour', 'SELECT 1')`], ['schedules'], 4],
  ['a schedule that is due', [`${SCHEDULE} '-1 s')`], ['schedules'], -1],
  ['a schedule that is due in a second', [`${SCHEDULE} '1 s')`], [], 1],
  [
    'a worker of every database',
    [`SELECT bgw_register('w', 'SELECT 1', scope => 'every_database', autostart => true)`],
    ['databases'],
    4,
  ],
  ['a launch', [WORKER, `SELECT bgw_launch('w')`], ['starts']],
  [
    'a launch that starts again later',
    [LAUNCH, `UPDATE bgw.process SET next_start = clock_timestamp() + interval '1 s'`],
    ['starts'],
    1,
  ],
  ['a nap', [`SELECT bgw_register('w', 'SELECT 1', naptime => '1 s')`, `SELECT bgw_launch('w')`], ['naps']],
  ['a signal', [LAUNCH, `SELECT bgw_terminate(id) FROM bgw.process`], ['notices', 'starts']],
  ['what was stopped', [LAUNCH, 'UPDATE bgw.process SET stop_requested_at = now()'], ['notices', 'starts']],
  [
    'what has lost its worker',
    [WORKER, `SELECT bgw_launch('w')`, 'UPDATE bgw.worker SET unregistered = true'],
    ['notices', 'starts'],
  ],
  ['a database to be left', [`SELECT bgw_interrupt_database('template1')`], ['notices'], 4],
];

test('a node sees what there is to do, each part by itself', async ({ db }) => {
  const { nodeId, epoch } = await joinNode(db);
  await db.query(`SELECT bgw.take_orders(${nodeId}, ${epoch}, 0)`); // keeps house
  for (const [what, statements, seen, wait = 2] of SITUATIONS) {
    await db.query('BEGIN');
    for (const statement of statements) await db.query(statement);
    const look = await db.value(
      `SELECT json_build_object('seen', ARRAY(SELECT key FROM json_each_text(to_json(look)) WHERE value = 'true' AND key NOT IN ('chores', 'idle') ORDER BY key),
                                'wait', ceil(date_part('epoch', due_at - clock_timestamp())))
       FROM bgw.look(${nodeId}, bgw.current_owner()) AS look`,
    );
    expect(look, what).toEqual({ seen, wait });
    await db.query('ROLLBACK');
  }
});

test('whether anything is registered only a poll asks: the next one is later if nothing is', async ({ db }) => {
  const { nodeId, epoch } = await joinNode(db);
  const wait = (isPoll: boolean): Promise<number> =>
    db.value(
      `SELECT round((bgw.take_orders(${nodeId}, ${epoch}, 8, is_poll => ${isPoll}) ->> 'wake_ms')::numeric / 1000)::int`,
    );
  expect(await wait(false)).toBe(2);
  expect(await wait(true)).toBe(4);
  await db.query(LAUNCH);
  await db.query(`UPDATE bgw.process SET next_start = clock_timestamp() + interval '1 hour'`);
  expect(await wait(true)).toBe(2);
});

test('what a chore has left is seen in the same turn', async ({ db }) => {
  await db.query(`SELECT bgw_register('w', 'SELECT 1'), bgw_schedule('s', '1 hour', worker => 'w')`);
  const { nodeId, epoch } = await joinNode(db);
  const orders = (): Promise<string> => db.value(`SELECT bgw.take_orders(${nodeId}, ${epoch}, 8) ->> 'orders'`);
  expect(await orders()).not.toContain('start');
  await db.query(`UPDATE bgw.schedule_state SET due_at = clock_timestamp(), starts_at = clock_timestamp()`);
  expect(await orders()).toContain('"kind":"start"');
});

test('a node that is rung starts what was launched, and looks at everything else in a moment', async ({ db }) => {
  const { nodeId, epoch } = await joinNode(db);
  const orders = async (hurried: boolean): Promise<{ kinds: string[]; wake_ms: number }> => {
    const answer = await db.value<{ orders: { kind: string }[][]; wake_ms: number }>(
      `SELECT bgw.take_orders(${nodeId}, ${epoch}, 8, ${hurried})`,
    );
    return { kinds: answer.orders.flat().map(({ kind }) => kind), wake_ms: answer.wake_ms };
  };
  const houseIsDue = (): Promise<boolean> =>
    db.value(`SELECT due_at <= clock_timestamp() FROM bgw.duty WHERE name = 'keep_house'`);
  await db.query(LAUNCH);
  expect(await orders(true)).toEqual({ kinds: ['start'], wake_ms: 10 });
  expect(await houseIsDue()).toBe(true);
  expect(await orders(true), 'nothing is to be started').toMatchObject({ kinds: [] });
  expect(await houseIsDue()).toBe(false);

  await db.query(`SELECT bgw_terminate(bgw_launch_sql('SELECT 1'))`);
  expect(await orders(true)).toMatchObject({ kinds: [] });
  expect(await db.value('SELECT array_agg(status) FROM bgw_run_history')).toEqual(['cancelled']);
});
