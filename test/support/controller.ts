/**
 * A node in a test: in this process, awaited by what it observes, or as a process of its own, to be killed.
 *
 *   import { expect, test } from './support/controller.ts';
 *   test('a committed launch starts', async ({ db, controller }) => {
 *     const handle = await db.value<bigint>(`SELECT bgw_launch('hello_world')`);
 *     await controller.saw('worker_started', { handle: String(handle) });
 *   });
 *
 * When the test is over every node is stopped, and a backend of one that is left in the database fails the test.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { pino } from 'pino';
import pg from 'pg';
import { onTestFinished, type TestAPI } from 'vitest';
import { runController, type RunOptions } from '../../src/commands/run.ts';
import { connectionConfig } from '../../src/connection.ts';
import type { Observation } from '../../src/observation.ts';
import { migrate } from '../../src/migrate.ts';
import { findPackageRoot } from '../../src/package-root.ts';
import { createDatabase, onServer, test as databaseTest, type TestDatabase } from './database.ts';
import { until } from './until.ts';

export { expect } from 'vitest';

type Kind = Observation['kind'];
type Of<K extends Kind> = Extract<Observation, { kind: K }>;

export interface TestController {
  readonly observations: readonly Observation[];
  /** The first observation of that kind with these fields, past or to come. */
  saw<K extends Kind>(kind: K, match?: Partial<Of<K>>, deadline?: number): Promise<Of<K>>;
  /** As Ctrl-C does. Resolves when the node has left. */
  stop(): Promise<void>;
}

export type ControllerOptions = Partial<Omit<RunOptions, 'connection' | 'log' | 'observe' | 'onReady'>>;

/** Starts a node and waits until it serves. Errors: those of runController. */
export async function startController(
  db: Pick<TestDatabase, 'url'>,
  options: ControllerOptions = {},
): Promise<TestController> {
  const observations: Observation[] = [];
  const stop = new AbortController();
  let onReady = (): void => undefined;
  const ready = new Promise<void>((resolve) => (onReady = resolve));
  const stopped = runController(
    {
      connection: connectionConfig({ url: db.url, env: {} }),
      libraryDirs: [],
      preloadLibraries: [],
      log: pino({ level: 'silent' }),
      observe: (observation) => observations.push(observation),
      onReady: () => onReady(),
      ...options,
    },
    stop.signal,
  );
  await Promise.race([ready, stopped]);
  return {
    observations,
    saw: <K extends Kind>(kind: K, match: Partial<Of<K>> = {}, deadline = 10_000) =>
      until(() => observations.find((seen): seen is Of<K> => seen.kind === kind && matches(seen, match)), {
        deadline,
        what: () => `${kind} ${inspect(match)} among ${inspect(observations.map((seen) => seen.kind))}`,
      }),
    stop: async () => {
      stop.abort();
      await stopped;
    },
  };
}

export interface ControllerProcess {
  readonly child: ChildProcess;
  /** Its log lines so far. */
  readonly lines: Record<string, unknown>[];
  /** The first line with that message. */
  said(message: RegExp, deadline?: number): Promise<Record<string, unknown>>;
  /** Sends the signal and waits for the exit; returns the exit code. */
  end(signal: NodeJS.Signals): Promise<number | null>;
}

/** Nodes of this test that are processes of their own. A test that fails half-way leaves none behind. */
const spawned = new Set<ChildProcess>();

function killSpawned(): void {
  for (const child of spawned) child.kill('SIGKILL');
  spawned.clear();
}

/** `bgw run` as a user starts it; serves when this resolves. */
export async function spawnController(db: TestDatabase, args: string[] = []): Promise<ControllerProcess> {
  const program = join(findPackageRoot(), 'dist', 'cli.js');
  const child = spawn(process.execPath, [program, 'run', '--url', db.url, ...args], {
    env: { PATH: process.env['PATH'] },
  });
  spawned.add(child);
  onTestFinished(killSpawned);
  const lines: Record<string, unknown>[] = [];
  let rest = '';
  child.stderr.on('data', (chunk: Buffer) => {
    const parts = (rest + chunk.toString()).split('\n');
    rest = parts.pop() ?? '';
    for (const part of parts)
      lines.push(part.startsWith('{') ? (JSON.parse(part) as Record<string, unknown>) : { msg: part });
  });
  const said: ControllerProcess['said'] = (message, deadline = 10_000) =>
    until(() => lines.find((line) => message.test(String(line['msg']))), {
      deadline,
      what: () => `${message} among ${inspect(lines)}`,
    });
  await said(/joined at epoch/);
  return {
    child,
    lines,
    said,
    end: async (signal) => {
      if (child.exitCode === null && child.signalCode === null) {
        const exited = once(child, 'exit');
        child.kill(signal);
        await exited;
      }
      return child.exitCode;
    },
  };
}

/** Waits until no backend of a node is left in the database. */
export async function nothingLeft(db: TestDatabase): Promise<void> {
  await until(async () => (await ownBackends(db)).length === 0, {
    what: 'the end of every backend of a node',
    deadline: 5000,
  });
}

/** Application names of the backends that nodes and workers have in the database. */
export async function ownBackends(db: TestDatabase): Promise<string[]> {
  const { rows } = await db.query<{ application_name: string }>(
    `SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ '^(bgw |bgworker: )'`,
  );
  return rows.map((row) => row.application_name);
}

/** A database that belongs to an ordinary role, as on a managed server; its main session is one of that role. */
export interface Ordinary {
  db: TestDatabase;
  role: string;
}

async function createOrdinary(): Promise<Ordinary> {
  const db = await createDatabase({ template: 'template0' });
  const role = `${db.name}_app`;
  await onServer(`CREATE ROLE ${role} LOGIN PASSWORD 'app' IN ROLE pg_read_all_stats, pg_signal_backend`);
  await onServer(`ALTER DATABASE ${db.name} OWNER TO ${role}`);
  const url = new URL(db.url);
  url.username = role;
  url.password = 'app';
  const installer = new pg.Client({ connectionString: url.href });
  await installer.connect();
  await migrate(installer);
  await installer.end();
  await db.query(`SET SESSION AUTHORIZATION ${role}`);
  return { db: { ...db, url: url.href }, role };
}

interface Fixtures {
  /** A node that serves this test's database. */
  controller: TestController;
  /** A database of an ordinary role, without a node. */
  ordinary: Ordinary;
  /** Starts a node with options of its own; stopped at the end like the others. */
  startController: (options?: ControllerOptions) => Promise<TestController>;
}

export const test: TestAPI<{ db: TestDatabase } & Fixtures> = databaseTest.extend<Fixtures>({
  startController: async ({ db }, use) => {
    const started: TestController[] = [];
    await use(async (options) => {
      const controller = await startController(db, options);
      started.push(controller);
      return controller;
    });
    await Promise.all(started.map((controller) => controller.stop()));
    killSpawned();
    if (started.length > 0) await nothingLeft(db);
  },
  ordinary: async ({}, use) => {
    const { db, role } = await createOrdinary();
    await use({ db, role });
    await db.drop();
    await onServer(`DROP ROLE ${role}`);
  },
  controller: async ({ startController: start }, use) => {
    await use(await start());
  },
});

function matches(seen: object, match: object): boolean {
  return Object.entries(match).every(([field, value]) => (seen as Record<string, unknown>)[field] === value);
}
