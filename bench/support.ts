/** What the measurements share: a server with a durable disk, a controller in a process of its own, and the arithmetic. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { startEmbedded } from '../src/embedded.ts';
import { migrate } from '../src/migrate.ts';
import { findPackageRoot } from '../src/package-root.ts';

export interface Bench {
  url: string;
  client: pg.Client;
  controller: ChildProcess;
  connect(): Promise<pg.Client>;
  stop(): Promise<void>;
}

/** A server of its own with fsync and synchronous_commit on, or the one given; the schema; and a controller. */
export async function startBench(given: string | undefined): Promise<Bench> {
  const directory = mkdtempSync(join(tmpdir(), 'bgw-bench-'));
  const server = given === undefined ? await startEmbedded({ dataDir: join(directory, 'data') }) : undefined;
  const url = given ?? server?.url ?? '';
  const clients: pg.Client[] = [];
  const connect = async (): Promise<pg.Client> => {
    const client = new pg.Client({ connectionString: url, application_name: 'bench' });
    client.on('error', () => undefined);
    await client.connect();
    clients.push(client);
    return client;
  };
  const client = await connect();
  await migrate(client);
  await client.query('DROP SCHEMA IF EXISTS bench CASCADE');
  await client.query('CREATE SCHEMA bench');
  const controller = spawn(
    process.execPath,
    [
      ...(process.env['BENCH_NODE_ARGS']?.split(' ') ?? []),
      join(findPackageRoot(), 'dist', 'cli.js'),
      'run',
      '--url',
      url,
      '--log-level',
      'error',
    ],
    {
      stdio: ['ignore', 'ignore', 'inherit'],
    },
  );
  while ((await value<number>(client, 'SELECT count(*)::int FROM bgw_nodes')) === 0) await pause(50);
  return {
    url,
    client,
    controller,
    connect,
    stop: async () => {
      controller.kill('SIGTERM');
      await once(controller, 'exit');
      await Promise.all(clients.map((each) => each.end()));
      await server?.stop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

export async function value<T>(client: pg.Client, sql: string, params: unknown[] = []): Promise<T> {
  const { rows } = await client.query<Record<string, T>>(sql, params);
  return Object.values(rows[0] ?? {})[0] as T;
}

export const pause = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => void setTimeout(resolve, milliseconds));

/** The value below which that share of the samples lies. */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

export const median = (samples: readonly number[]): number => percentile(samples, 0.5);
