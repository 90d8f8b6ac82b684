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
const size = options.quick ? { rounds: 1, seconds: 2, nights: 4 } : { rounds: 5, seconds: 5, nights: 40 };

/** What each transaction does; the settings are those of its session. */
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

const directory = mkdtempSync(join(tmpdir(), 'bgw-bench-transactions-'));
const bench = await startBench(options.url);
try {
  await bench.client.query(
    'CREATE TABLE bench.queue (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())',
  );
  await bench.client.query('CREATE UNLOGGED TABLE bench.seen (handle bigint PRIMARY KEY, at timestamptz)');
  await bench.client.query(`SELECT bgw_register('bench_probe', 'SELECT 1')`);
  for (const clients of [8, 32]) process.stdout.write(`${await throughputTable(clients)}\n`);
  process.stdout.write(`${await latencyTable()}\n`);
} finally {
  await bench.stop();
  rmSync(directory, { recursive: true, force: true });
}

async function throughputTable(clients: number): Promise<string> {
  const rates = new Map<Script, number[]>(NAMES.map((name) => [name, []]));
  for (let round = 0; round < size.rounds; round += 1) {
    for (const name of NAMES) {
      rates.get(name)?.push(await transactionsPerSecond(name, clients));
      await forgetWaiting(bench.client);
    }
  }
  const silent = median(rates.get('bgw_launch, bgw.notify = off') ?? []);
  const rows = [...rates].map(([name, samples]) => {
    const spread = `${Math.round(Math.min(...samples))} to ${Math.round(Math.max(...samples))}`;
    return `| ${name} | ${Math.round(median(samples))} | ${spread} | ${(median(samples) / silent).toFixed(2)} |`;
  });
  return [
    `| transactions per second, ${clients} clients | median | spread | / notify = off |`,
    '|---|---|---|---|',
    ...rows,
    '',
  ].join('\n');
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
  await once(child, 'close');
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
  while ((await value<string>(client, 'SELECT count(*) FROM bgw.process')) !== '0') {
    await client.query('DELETE FROM bgw.process WHERE run_id IS NULL');
    await pause(100);
  }
  await client.query('VACUUM bgw.process');
  await client.query('TRUNCATE bench.queue');
}

/** Milliseconds from the call to the first own statement: at rest, while the nodes are awake, and as they fall asleep. */
async function latencyTable(): Promise<string> {
  const sessions = await Promise.all(Array.from({ length: 8 }, () => bench.connect()));
  const atRest: number[] = [];
  for (let launch = 0; launch < size.nights * 8; launch += 1) {
    atRest.push(await latency(sessions[launch % 8] as pg.Client));
    await pause(60); // so that it is one backend that rings
  }
  const awake = await nights(sessions, 300, 100);
  const asleep = await nights(sessions, 0, 30);
  // A commit that takes 50 ms longer, after it has looked whether to ring.
  for (const session of sessions) await session.query('SET commit_siblings = 0; SET commit_delay = 50000');
  const slow = await nights(sessions, 0, 80);
  return [
    '| launch to first own statement, ms | p50 | p99 | max | over 100 ms |',
    '|---|---|---|---|---|',
    latencyRow('nodes asleep', atRest),
    latencyRow('nodes awake', awake),
    latencyRow('within 30 ms of falling asleep', asleep),
    latencyRow('within 80 ms of falling asleep, commits of 50 ms', slow),
    '',
  ].join('\n');
}

/** Each session launches once in every night, at a random moment up to `spread` ms from `before` ms before the end of the promise. */
async function nights(sessions: readonly pg.Client[], before: number, spread: number): Promise<number[]> {
  const samples: number[] = [];
  for (let night = 0; night < size.nights; night += 1) {
    const left = await wakeNodes(bench, sessions);
    const launches = sessions.map(async (session) => {
      await pause(left - before + spread * (2 * Math.random() - 1));
      return latency(session);
    });
    samples.push(...(await Promise.all(launches)));
    await pause(2000); // asleep again
  }
  return samples;
}

/** Launches from all sessions at once until the nodes are awake. Returns for how many milliseconds they stay so. */
async function wakeNodes({ client }: Bench, sessions: readonly pg.Client[]): Promise<number> {
  for (;;) {
    await Promise.all(sessions.map((session) => session.query(`SELECT bgw_launch('bench_probe')`)));
    const left = await value<number | null>(
      client,
      `SELECT 1000 * extract(epoch FROM min(awake_until) - clock_timestamp())::float8 FROM bgw.node`,
    );
    if (left !== null && left > 400) return left;
  }
}

async function latency(session: pg.Client): Promise<number> {
  const { rows } = await session.query<{ handle: string; from: string }>(
    `SELECT clock_timestamp()::text AS from, bgw_launch_sql('INSERT INTO bench.seen VALUES (current_setting(''bgw.handle'')::bigint, clock_timestamp())') AS handle`,
  );
  const { handle = '', from = '' } = rows[0] ?? {};
  for (;;) {
    const took = await value<number | undefined>(
      bench.client,
      'SELECT 1000 * extract(epoch FROM at - $2::timestamptz)::float8 FROM bench.seen WHERE handle = $1',
      [handle, from],
    );
    if (took !== undefined) return took;
    await pause(20);
  }
}

function latencyRow(name: string, samples: readonly number[]): string {
  const [p50, p99, max] = [0.5, 0.99, 1].map((share) => percentile(samples, share).toFixed(1));
  const late = samples.filter((sample) => sample > 100).length;
  return `| ${name} | ${p50} | ${p99} | ${max} | ${late} of ${samples.length} |`;
}
