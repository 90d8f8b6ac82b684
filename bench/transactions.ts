/**
 * npm run bench:transactions: what a launch costs the transactions of users, by pgbench with 8 and 32 clients, in turns;
 * and what the nodes' looking by themselves costs a launch (src/vigil.ts): its latency about the moment when a node stops.
 * Options: --quick (half a minute), --url URL (a server of yours), --pgbench PATH.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type pg from 'pg';
import { type Bench, median, pause, percentile, startBench, value } from './support.ts';

const { values: options } = parseArgs({
  options: { quick: { type: 'boolean', default: false }, url: { type: 'string' }, pgbench: { type: 'string' } },
});
const size = options.quick ? { rounds: 1, seconds: 1, nights: 1 } : { rounds: 5, seconds: 2, nights: 15 };

/** What each transaction does, and with what settings. */
const SCRIPTS = {
  'a row': { sql: 'INSERT INTO bench.queue DEFAULT VALUES', settings: '' },
  'a row and NOTIFY': {
    sql: `WITH queued AS (INSERT INTO bench.queue DEFAULT VALUES RETURNING id) SELECT pg_notify('bench', '') FROM queued`,
    settings: '',
  },
  'bgw_launch, bgw.notify = off': { sql: `SELECT bgw_launch('bench_probe')`, settings: '-c bgw.notify=off' },
  'bgw_launch and NOTIFY each time': { sql: `SELECT bgw_launch('bench_probe'), bgw.ring()`, settings: '' },
  bgw_launch: { sql: `SELECT bgw_launch('bench_probe')`, settings: '' },
};
type Script = keyof typeof SCRIPTS;
const NAMES = Object.keys(SCRIPTS) as Script[];
const LAUNCHES = NAMES.filter((name) => name.startsWith('bgw_launch'));

const directory = mkdtempSync(join(tmpdir(), 'bgw-bench-transactions-'));
const bench = await startBench(options.url);
try {
  await bench.client.query(
    'CREATE TABLE bench.queue (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())',
  );
  await bench.client.query('CREATE UNLOGGED TABLE bench.seen (handle bigint PRIMARY KEY, at timestamptz)');
  await bench.client.query(`SELECT bgw_register('bench_probe', 'SELECT 1')`);
  for (const clients of [8, 32]) process.stdout.write(`${await throughputTable('the node works', NAMES, clients)}\n`);
  await fillNode(bench.client);
  for (const clients of [8, 32])
    process.stdout.write(`${await throughputTable('every slot is taken', LAUNCHES, clients)}\n`);
  await emptyNode(bench.client);
  process.stdout.write(`${await latencyTable()}\n`);
} finally {
  await bench.stop();
  rmSync(directory, { recursive: true, force: true });
}

async function throughputTable(state: string, names: readonly Script[], clients: number): Promise<string> {
  const rates = new Map<Script, number[]>(names.map((name) => [name, []]));
  for (let round = 0; round < size.rounds; round += 1) {
    for (const name of names) {
      rates.get(name)?.push(await transactionsPerSecond(name, clients));
      await forgetWaiting(bench.client);
    }
  }
  const silent = rates.get('bgw_launch, bgw.notify = off') ?? [];
  const rows = [...rates].map(([name, samples]) => {
    const spread = `${Math.round(Math.min(...samples))} to ${Math.round(Math.max(...samples))}`;
    // Of the same round: a machine that is shared changes its pace.
    const ratio = median(samples.map((sample, round) => sample / (silent[round] ?? Number.NaN)));
    return `| ${name} | ${Math.round(median(samples))} | ${spread} | ${ratio.toFixed(2)} |`;
  });
  return [
    `| transactions per second, ${clients} clients, ${state} | median | spread | / notify = off |`,
    '|---|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}

/** What is launched waits from now on, so that its runs take no part of the machine. */
async function fillNode(client: pg.Client): Promise<void> {
  await client.query(
    `SELECT bgw_launch_sql('SELECT pg_sleep(3600)', name => 'bench_sleeper') FROM generate_series(1, (SELECT sum(max_worker_processes) FROM bgw_nodes))`,
  );
  while (await value<boolean>(client, `SELECT EXISTS (SELECT FROM bgw.process WHERE run_id IS NULL)`)) await pause(20);
}

async function emptyNode(client: pg.Client): Promise<void> {
  await client.query(`SELECT bgw_terminate(id) FROM bgw.process WHERE name = 'bench_sleeper'`);
  while (await value<boolean>(client, `SELECT EXISTS (SELECT FROM bgw.process)`)) await pause(20);
}

async function transactionsPerSecond(name: Script, clients: number): Promise<number> {
  const script = join(directory, 'script.sql');
  const { sql, settings } = SCRIPTS[name];
  writeFileSync(script, `${sql};\n`);
  const args = [
    '-n',
    '-M',
    'prepared',
    '-c',
    `${clients}`,
    '-j',
    '2',
    '-T',
    `${size.seconds}`,
    '-f',
    script,
    bench.url,
  ];
  const child = spawn(findPgbench(), args, {
    env: { ...process.env, PGOPTIONS: settings },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const closed = once(child, 'close');
  // Where launches do not ring the node would begin at some moment of its poll interval.
  for (let ring = 0; ring < 3; ring += 1) {
    await pause(100);
    await bench.client.query('NOTIFY bgw');
  }
  await closed;
  const rate = /tps = ([\d.]+) \(without/.exec(output)?.[1];
  if (rate === undefined) throw new Error(`pgbench has failed: ${output}`);
  return Number(rate);
}

function findPgbench(): string {
  const debian = '/usr/lib/postgresql';
  const versions = existsSync(debian) ? readdirSync(debian).toSorted((a, b) => Number(b) - Number(a)) : [];
  return (
    options.pgbench ?? versions.map((version) => join(debian, version, 'bin', 'pgbench')).find(existsSync) ?? 'pgbench'
  );
}

/** More is launched than two cores can run: what waits goes, and the next turn finds the table as the one before. */
async function forgetWaiting(client: pg.Client): Promise<void> {
  while (await value<boolean>(client, `SELECT EXISTS (SELECT FROM bgw.process WHERE name = 'bench_probe')`)) {
    await client.query('DELETE FROM bgw.process WHERE run_id IS NULL');
    await pause(100);
  }
  await client.query('VACUUM bgw.process');
  await client.query('TRUNCATE bench.queue');
}

/** Milliseconds that the call took, commit and all, and from then to the first own statement. */
interface Latency {
  call: number;
  start: number;
}

/** Launches at rest, while the node is awake, and as it falls asleep. */
async function latencyTable(): Promise<string> {
  const sessions = await Promise.all(Array.from({ length: 8 }, () => bench.connect()));
  const rows = [
    latencyRow('node asleep', await days(sessions, size.nights * 8)),
    latencyRow('node awake', await nights(sessions, 200, 100)),
    latencyRow('within 20 ms of its falling asleep', await nights(sessions, 0, 20)),
  ];
  // Between the look whether to ring and the end of the commit; the sessions wait for each other.
  for (const session of sessions) await session.query('SET commit_siblings = 0; SET commit_delay = 20000');
  rows.push(latencyRow('the same, commits of 20 ms and more', await nights(sessions, 0, 20)));
  return [
    '| commit to first own statement, ms | p50 | p99 | max | over 100 ms | longest beyond its own commit |',
    '|---|---|---|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}

/** Launches of one session at a time, which never wake a node for longer than a look. */
async function days(sessions: readonly pg.Client[], launches: number): Promise<Latency[]> {
  const samples: Latency[] = [];
  for (let launch = 0; launch < launches; launch += 1) {
    samples.push(await latency(sessions[launch % sessions.length] as pg.Client));
    await pause(30);
  }
  return samples;
}

/** Each session launches once in every night, at a random moment up to `spread` ms from `before` ms before the end of the promise. */
async function nights(sessions: readonly pg.Client[], before: number, spread: number): Promise<Latency[]> {
  const samples: Latency[] = [];
  for (let night = 0; night < size.nights; night += 1) {
    const end = await wakeNode(bench, sessions);
    const launches = sessions.map(async (session) => {
      await pause(end - performance.now() - before + spread * (2 * Math.random() - 1));
      return latency(session);
    });
    samples.push(...(await Promise.all(launches)));
    await pause(end - performance.now() + 1500); // asleep again, if these launches have woken it
  }
  return samples;
}

/** Launches from all sessions at once until the node is awake. Returns until when it stays so, by performance.now(). */
async function wakeNode({ client }: Bench, sessions: readonly pg.Client[]): Promise<number> {
  for (;;) {
    await Promise.all(sessions.map((session) => session.query(`SELECT bgw_launch('bench_probe')`)));
    const left = await value<number | null>(
      client,
      'SELECT 1000 * extract(epoch FROM min(awake_until) - clock_timestamp())::float8 FROM bgw.node',
    );
    if (left !== null && left > 0) return performance.now() + left;
  }
}

async function latency(session: pg.Client): Promise<Latency> {
  const from = performance.now();
  const { rows } = await session.query<{ handle: string; called: string }>(
    'SELECT clock_timestamp()::text AS called, bgw_launch_sql($1) AS handle',
    [`INSERT INTO bench.seen VALUES (current_setting('bgw.handle')::bigint, clock_timestamp())`],
  );
  const [call, { handle = '', called = '' } = {}] = [performance.now() - from, rows[0]];
  for (;;) {
    const started = await session.query<{ after: number }>(
      'SELECT 1000 * extract(epoch FROM at - $2::timestamptz)::float8 AS after FROM bench.seen WHERE handle = $1',
      [handle, called],
    );
    if (started.rows[0]) return { call, start: Math.max(0, started.rows[0].after - call) };
    await pause(20);
  }
}

function latencyRow(name: string, samples: readonly Latency[]): string {
  const starts = samples.map(({ start }) => start);
  const [p50, p99, max] = [0.5, 0.99, 1].map((share) => percentile(starts, share).toFixed(1));
  const late = starts.filter((start) => start > 100).length;
  const beyond = Math.max(0, ...samples.map(({ call, start }) => start - call)).toFixed(1);
  return `| ${name} | ${p50} | ${p99} | ${max} | ${late} of ${samples.length} | ${beyond} |`;
}
