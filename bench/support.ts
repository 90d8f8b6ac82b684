/** What the measurements share: databases, a controller in a process of its own, and the arithmetic. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { startEmbedded } from '../src/embedded.ts';
import { migrate } from '../src/migrate.ts';
import { findPackageRoot } from '../src/package-root.ts';

/** A database with an empty schema `bench`. */
export interface Database {
  url: string;
  client: pg.Client;
  /** One more connection, closed with the others. */
  connect(): Promise<pg.Client>;
  close(): Promise<void>;
}

export interface Bench extends Database {
  controller: ChildProcess;
  stop(): Promise<void>;
}

export const root: string = findPackageRoot();

/** A server of its own with fsync and synchronous_commit on, or the one given; the schema; and a controller. */
export async function startBench(given: string | undefined): Promise<Bench> {
  const directory = mkdtempSync(join(tmpdir(), 'bgw-bench-'));
  const server = given === undefined ? await startEmbedded({ dataDir: join(directory, 'data') }) : undefined;
  const database = await openDatabase(given ?? server?.url ?? '');
  const controller = await startController(database);
  return {
    ...database,
    controller,
    stop: async () => {
      await stopProcess(controller);
      await database.close();
      await server?.stop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

export async function openDatabase(url: string): Promise<Database> {
  const clients: pg.Client[] = [];
  const connect = async (): Promise<pg.Client> => {
    const client = new pg.Client({ connectionString: url, application_name: 'bench' });
    client.on('error', () => undefined);
    await client.connect();
    clients.push(client);
    return client;
  };
  const client = await connect();
  await client.query('DROP SCHEMA IF EXISTS bench CASCADE; CREATE SCHEMA bench');
  const close = async (): Promise<void> => void (await Promise.all(clients.map((each) => each.end())));
  return { url, client, connect, close };
}

/** Installs the schema and starts a node with its defaults; resolves when it has joined. */
export async function startController({ url, client }: Database): Promise<ChildProcess> {
  await migrate(client);
  const program = join(root, 'dist', 'cli.js');
  const options = ['--url', url, '--log-level', 'error', '--library-dir', join(root, 'bench', 'library')];
  const controller = spawn(process.execPath, [program, 'run', ...options], { stdio: ['ignore', 'ignore', 'inherit'] });
  await until(async () => (await value<number>(client, 'SELECT count(*)::int FROM bgw_nodes')) > 0);
  return controller;
}

export async function stopProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGTERM');
  await once(child, 'exit');
}

export async function value<T>(client: pg.Client, sql: string, params: unknown[] = []): Promise<T> {
  const { rows } = await client.query<Record<string, T>>(sql, params);
  return Object.values(rows[0] ?? {})[0] as T;
}

/** Whether the query finds nothing: cheaper than counting, where a queue is watched while it is drained. */
export async function isEmpty(client: pg.Client, sql: string): Promise<boolean> {
  return (await client.query(sql)).rows.length === 0;
}

export const pause = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => void setTimeout(resolve, milliseconds));

/** No measurement waits for longer: something is broken then. */
const PATIENCE = 300_000;

export async function until(holds: () => Promise<boolean>, every = 20): Promise<void> {
  const deadline = performance.now() + PATIENCE;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`still not so after ${PATIENCE / 1000} s: ${String(holds)}`);
    await pause(every);
  }
}

/** The value below which that share of the samples lies. */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

/** Between the two in the middle, where there are two. */
export function median(samples: readonly number[]): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return ((sorted[Math.floor(middle)] ?? Number.NaN) + (sorted[Math.ceil(middle)] ?? Number.NaN)) / 2;
}
