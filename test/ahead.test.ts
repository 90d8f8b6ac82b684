/** What a node claims ahead of its slots (src/hosts/backlog.ts): a long run delays only itself, and nothing runs twice or is lost. */
import { duplexPair } from 'node:stream';
import { Backlog } from '../src/hosts/backlog.ts';
import type { StartOrder } from '../src/orders.ts';
import { Wire } from '../src/sessions/wire.ts';
import { expect, test } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { fakeClock } from './support/clock.ts';
import { until } from './support/until.ts';

/** Many short ones, so that the node claims ahead, with `long` in between, after the first half. */
const queue = (db: TestDatabase, count: number, long: number): Promise<unknown> =>
  db.query(
    `SELECT count(bgw_launch_sql(CASE WHEN n BETWEEN $1 / 2 AND $1 / 2 + $2 - 1 THEN 'SELECT pg_sleep(600)' ELSE 'SELECT 1' END,
                                 name => 'n' || n)) FROM generate_series(1, $1::int) AS n`,
    [count, long],
  );

const count = (db: TestDatabase, condition: string): Promise<number> =>
  db.value(`SELECT count(*)::int FROM bgw.process WHERE ${condition}`);

test('what does not start soon is given back, and runs when there is a slot, once', async ({ db, startController }) => {
  await startController({ maxWorkerProcesses: 2 });
  await queue(db, 600, 2);
  await until(async () => (await count(db, `status = 'started'`)) === 2, { what: 'two long runs' });
  await until(async () => (await count(db, 'run_id IS NOT NULL')) === 2, { what: 'nothing claimed beyond them' });
  expect(await count(db, 'true'), 'some of the short ones wait').toBeGreaterThan(2);

  // One of them is terminated before it has started; then the slots are free again.
  const waiting = await db.value<bigint>('SELECT max(id) FROM bgw.process');
  await db.query('SELECT bgw_terminate($1::bigint)', [waiting]);
  await db.query(`SELECT bgw_terminate(id) FROM bgw.process WHERE command LIKE '%pg_sleep%'`);
  await until(async () => (await count(db, 'true')) === 0, { what: 'the end of all' });
  const { rows } = await db.query(
    `SELECT status, count(*)::int AS runs, count(DISTINCT handle)::int AS handles FROM bgw_run_history GROUP BY status ORDER BY status`,
  );
  expect(rows).toEqual([
    { status: 'cancelled', runs: 3, handles: 3 },
    { status: 'done', runs: 597, handles: 597 },
  ]);
});

test('what was claimed later does not overtake what is given back', async () => {
  const { clock, pass } = fakeClock();
  const returned: string[] = [];
  const backlog = new Backlog(clock, ({ handle }) => returned.push(handle));
  backlog.push({ handle: '1' } as StartOrder);
  pass(199);
  backlog.push({ handle: '2' } as StartOrder);
  pass(1);
  await until(() => returned.length > 0, { what: 'the first to be given back' });
  expect(returned).toEqual(['1', '2']);
  expect(backlog.stock()).toBe('none');
});

test('another node runs what waits behind the long runs of one', async ({ db, startController }) => {
  await startController({ nodeName: 'busy', maxWorkerProcesses: 1 });
  await queue(db, 400, 1);
  await until(async () => (await count(db, `status = 'started'`)) === 1, { what: 'the long run' });
  await startController({ nodeName: 'idle', maxWorkerProcesses: 1 });
  await until(async () => (await count(db, 'true')) === 1, { what: 'the end of all but the long run' });
  expect(await db.value('SELECT count(DISTINCT handle)::int FROM bgw_run_history')).toBe(399);
  await db.query('SELECT bgw_terminate(id) FROM bgw.process');
});

test('a node that stops gives back what it has not started', async ({ db, startController }) => {
  const first = await startController({ nodeName: 'first', maxWorkerProcesses: 4 });
  await queue(db, 3000, 0);
  await until(async () => (await db.value<number>('SELECT count(*)::int FROM bgw_run_history')) > 100);
  await first.stop();
  await startController({ nodeName: 'second', maxWorkerProcesses: 4 });
  await until(async () => (await count(db, 'true')) === 0, { what: 'the end of all' });
  const { rows } = await db.query(
    `SELECT count(*)::int AS runs, count(DISTINCT handle)::int AS handles, count(*) FILTER (WHERE status <> 'done')::int AS others FROM bgw_run_history`,
  );
  expect(rows[0]).toMatchObject({ runs: 3000, handles: 3000 });
  expect(rows[0].others, 'those that ran when the node was stopped').toBeLessThanOrEqual(4);
});

const ROW = `current_setting('bgw.handle')::bigint, current_setting('bgw.run_id')::bigint, current_setting('bgw.worker_name')`;
const KINDS: Record<string, { command: string; tag: string | null; sqlstate: string | null }> = {
  plain: { command: `INSERT INTO ran VALUES (${ROW}, current_query()); `, tag: 'INSERT 0 1', sqlstate: null },
  quoted: { command: `INSERT INTO ran SELECT ${ROW}, 'it''s; "--' || -1`, tag: 'INSERT 0 1', sqlstate: null },
  several: { command: `SELECT 1; INSERT INTO ran VALUES (${ROW}, 'two')`, tag: 'INSERT 0 1', sqlstate: null },
  none: { command: 'UPDATE ran SET query = query WHERE false', tag: 'UPDATE 0', sqlstate: null },
  failing: { command: 'SELECT 1 / count(*) FROM ran WHERE false', tag: null, sqlstate: '22012' },
  unfinished: { command: `SELECT 'x`, tag: null, sqlstate: '42601' },
};

for (const mode of ['session', 'atomic']) {
  test(`one of many runs as it would alone, mode ${mode}`, async ({ db, startController }) => {
    await db.query('CREATE TABLE ran (handle bigint, run_id bigint, name text, query text)');
    const { rows: launched } = await db.query(
      `SELECT bgw_launch_sql(command, mode => $2, name => kind) FROM generate_series(1, 100), json_each_text($1) AS kinds (kind, command)`,
      [JSON.stringify(Object.fromEntries(Object.entries(KINDS).map(([kind, { command }]) => [kind, command]))), mode],
    );
    await startController({ maxWorkerProcesses: 2 });
    await until(async () => (await count(db, 'true')) === 0, { what: 'the end of all' });
    const { rows } = await db.query(
      `SELECT name, count(*)::int AS runs, array_agg(DISTINCT command_tag) AS tags, array_agg(DISTINCT sqlstate) AS states FROM bgw_run_history GROUP BY name`,
    );
    const wanted = Object.entries(KINDS).map(([name, { tag, sqlstate }]) => ({
      name,
      runs: launched.length / 6,
      tags: [tag],
      states: [sqlstate],
    }));
    expect(rows).toEqual(expect.arrayContaining(wanted));
    const ran = `FROM ran JOIN bgw_run_history AS run ON run.handle = ran.handle AND run.run_id = ran.run_id AND run.name = ran.name`;
    expect(await db.value(`SELECT count(DISTINCT ran.handle)::int ${ran}`)).toBe(300);
    const together = await db.value<string[]>(`SELECT array_agg(query) ${ran} WHERE query ~ '^(BEGIN|SET)'`);
    expect(together.length, 'the names of some were sent with their command').toBeGreaterThan(0);
    // An error behind the COMMIT would say of what is committed that it failed.
    const end = mode === 'atomic' ? /; COMMIT$/ : /; SET statement_timeout = 0$/;
    expect(together.filter((query) => !end.test(query))).toEqual([]);
  });
}

test('a timeout that a command leaves is not taken for the answer of another one', async ({ db, startController }) => {
  await db.query('CREATE TABLE ran (n int, litter bigint)');
  // It takes longer than a millisecond to take back what this leaves.
  await db.query(`CREATE FUNCTION litter() RETURNS void LANGUAGE plpgsql AS $$
    BEGIN FOR n IN 1..50 LOOP EXECUTE format('CREATE TEMP TABLE litter%s (n int PRIMARY KEY)', n); END LOOP; END $$`);
  await db.query(
    `CREATE FUNCTION litter_unseen() RETURNS void LANGUAGE sql AS $$ SELECT litter(), set_config('statement_timeout', '1ms', false) $$`,
  );
  const left = `(SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relname ~ '^litter')`;
  await db.query(
    `SELECT CASE n % 40 WHEN 10 THEN bgw_launch_sql($1, name => 'litter') WHEN 30 THEN bgw_launch_sql('SELECT litter_unseen()', name => 'litter')
                        ELSE bgw_launch_sql(format('INSERT INTO ran VALUES (%s, %s)', n, $2::text), name => 'insert') END
     FROM generate_series(1, 400) AS n`,
    [`SELECT litter(), set_config('statement_timeout', '1ms', false)`, left],
  );
  await startController({ maxWorkerProcesses: 2 });
  await until(async () => (await count(db, 'true')) === 0, { what: 'the end of all' });
  expect(await db.value('SELECT max(litter)::int FROM ran')).toBe(0);
  // A timeout may hit the very statement that takes it back: then it has ended whose it was.
  const { rows } = await db.query(
    `SELECT name, count(*)::int AS runs, count(DISTINCT handle)::int AS handles,
            bool_and(status = 'done' OR name = 'litter' AND sqlstate = '57014') AS "endedWell"
     FROM bgw_run_history GROUP BY name ORDER BY name`,
  );
  expect(rows).toEqual([
    { name: 'insert', runs: 380, handles: 380, endedWell: true },
    { name: 'litter', runs: 20, handles: 20, endedWell: true },
  ]);
  expect(await db.value('SELECT count(*)::int FROM ran')).toBe(380);
});

test('an error that may be the answer to nothing ends the session', async () => {
  const [client, server] = duplexPair();
  const wire = new Wire(client);
  const answers = wire.send([{ text: 'SET a.b = 1', isOpening: true }, { text: 'SELECT 1' }]);
  server.write(Buffer.from('E\0\0\0\x19SERROR\0C57014\0Mlate\0\0Z\0\0\0\x05I', 'latin1'));
  expect((await answers).map(({ error }) => (error as { code?: string }).code)).toEqual(['57014', '08006']);
  expect(client.destroyed).toBe(true);
});
