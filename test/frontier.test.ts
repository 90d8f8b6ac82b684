/** Where in the queue the claims of a node begin (src/frontier.ts): nothing that stands before is forgotten. */
import { BEGIN, Frontier } from '../src/frontier.ts';
import { expect, test } from './support/controller.ts';
import { fakeClock } from './support/clock.ts';
import { until } from './support/until.ts';

function createFrontier(): { frontier: Frontier; pass: (milliseconds: number) => void } {
  const { clock, pass } = fakeClock();
  return { frontier: new Frontier(clock), pass };
}

/** Claims until the frontier of a busy node is at that turn. */
function claimTo(turn: number, { frontier, pass }: ReturnType<typeof createFrontier>): void {
  for (let claimed = 0; claimed <= turn; claimed += 1) {
    frontier.next();
    frontier.advance(10, claimed);
    pass(3);
  }
}

test('a node that claims little begins at the first entry each time', () => {
  const { frontier, pass } = createFrontier();
  for (let turn = 1; turn < 1000; turn += 1) {
    expect(frontier.next()).toBe(BEGIN);
    frontier.advance(1, turn);
    expect(frontier.nextLook()).toBe(Infinity);
    pass(5);
  }
});

test('a busy one begins where it was, and once in a window at the first', () => {
  const { frontier, pass } = createFrontier();
  let whole = 0;
  for (let turn = 1; turn <= 1000; turn += 1) {
    const since = frontier.next();
    if (since === BEGIN) whole += 1;
    else expect(since).toBeCloseTo(turn - 1.05);
    frontier.advance(10, turn);
    pass(5);
  }
  expect(whole).toBeGreaterThan(1000 / 40);
  expect(whole).toBeLessThan(1000 / 40 + 40);
});

test('what is given back is looked at at once', () => {
  const node = createFrontier();
  const { frontier } = node;
  claimTo(99, node);
  expect(frontier.next()).toBeCloseTo(98.95);
  frontier.rewind();
  expect(frontier.next()).toBe(BEGIN);
  frontier.advance(10, 20);
  expect(frontier.next()).toBeCloseTo(19.95);
});

test('the longer such a claim takes, the seldomer it is made, and no seldomer than a poll', () => {
  for (const [duration, window] of [
    [10, 200],
    [50, 500],
    [5000, 2000],
  ] as const) {
    const { frontier, pass } = createFrontier();
    const claim = (): number => {
      const since = frontier.next();
      if (since === BEGIN) pass(duration);
      frontier.advance(100, 1);
      return since;
    };
    claim();
    pass(window);
    expect(claim(), 'the first of a busy window').toBe(BEGIN);
    pass(window - 1);
    expect(claim()).toBeCloseTo(0.95);
    pass(1);
    expect(claim()).toBe(BEGIN);
  }
});

test('a node that is no longer busy looks at what it has left out, and then as ever', () => {
  const node = createFrontier();
  const { frontier, pass } = node;
  claimTo(99, node);
  frontier.next();
  expect(frontier.nextLook()).toBeGreaterThan(0);
  expect(frontier.nextLook()).toBeLessThanOrEqual(200);
  pass(frontier.nextLook());
  expect(frontier.next()).toBe(BEGIN);
  expect(frontier.nextLook()).toBe(Infinity);
  frontier.advance(1, 100);
  pass(1000);
  frontier.next();
  frontier.advance(1, 101);
  expect(frontier.next()).toBe(BEGIN);
});

test('a claim leaves what has an earlier turn to one that begins at the first', async ({ db }) => {
  await db.query(`SELECT bgw_launch_sql('SELECT 1') FROM generate_series(1, 3)`);
  await db.query('UPDATE bgw.process SET turn = id');
  const [first, ...others] = await db.value<string[]>('SELECT array_agg(id::text ORDER BY id) FROM bgw.process');
  const { rows } = await db.query(`SELECT node_id, epoch FROM bgw.join_node('n', '{}', 8)`);
  const claim = async (since: number | string): Promise<{ handles: string[]; first_turn: number | null }> => {
    const answer = await db.value<{ orders: { handle: string }[][]; first_turn: number | null }>(
      'SELECT bgw.take_orders($1, $2, 8, true, $3)',
      [rows[0].node_id, rows[0].epoch, since],
    );
    return { handles: answer.orders.flat().map(({ handle }) => handle), first_turn: answer.first_turn };
  };
  const from = Number(first) + 0.5;
  expect(await claim(from)).toEqual({ handles: others, first_turn: Number(others[0]) });
  expect(await claim(from)).toEqual({ handles: [], first_turn: null });
  expect(await claim(BEGIN)).toEqual({ handles: [first], first_turn: Number(first) });
});

test('what is due by a schedule is claimed before what is behind the frontier, if it has priority', async ({ db }) => {
  await db.query(`SELECT bgw_schedule_at('first', '2100-01-01', 'SELECT 1', priority => 5)`);
  const { rows } = await db.query(`SELECT node_id, epoch FROM bgw.join_node('n', '{}', 8)`);
  await db.query('SELECT bgw.take_orders($1, $2, 0)', [rows[0].node_id, rows[0].epoch]); // notes the schedule
  await db.query('UPDATE bgw.schedule_state SET due_at = clock_timestamp(), starts_at = clock_timestamp()');
  await db.query(`SELECT bgw_launch_sql('SELECT 1', name => 'second')`);
  const answer = await db.value<{ orders: { name: string }[][] }>(
    `SELECT bgw.take_orders($1, $2, 8, since => date_part('epoch', clock_timestamp() - interval '1 s'))`,
    [rows[0].node_id, rows[0].epoch],
  );
  expect(answer.orders.flat().map(({ name }) => name)).toEqual(['first', 'second']);
});

test('what commits late is started while there is much that is younger', async ({ db, startController }) => {
  await startController();
  const late = await db.client();
  await late.query('BEGIN');
  const { rows } = await late.query(`SELECT bgw_launch_sql('SELECT 1') AS handle`);
  await db.query(`SELECT count(bgw_launch_sql('SELECT 1')) FROM generate_series(1, 10000)`);
  const finished = (): Promise<number> => db.value('SELECT count(*)::int FROM bgw_run_history');
  await until(async () => (await finished()) > 2000, { what: 'a node that is busy' });
  await late.query('COMMIT');
  await until(async () => (await finished()) === 10_001, { what: 'the last run' });
  const after = `SELECT count(*)::int FROM bgw_run_history AS run JOIN bgw_run_history AS late ON late.handle = $1 WHERE run.finished_at > late.finished_at`;
  expect(await db.value(after, [rows[0].handle])).toBeGreaterThan(0);
});
