/**
 * One pooled session: a backend of one (database, owner) for its whole life, reset between runs (HARDENING A3).
 * Registered with the control plane before it runs any user text (B3); ended only when its backend is gone (I11).
 */
import type { ClientConfig } from 'pg';
import pg from 'pg';
import type { NoticeMessage } from 'pg-protocol/dist/messages.js';
import { BgwError } from '../errors.ts';
import { endClient, streamOf } from './end.ts';
import { Guard } from './guard.ts';
import { Statement, type StatementResult } from './statement.ts';

export interface Backend {
  pid: number;
  /** As text: pg_stat_activity has microseconds, a Date does not. */
  backendStart: string;
}

export interface SessionRegistry {
  /** Registers a backend of this node; returns its start time. */
  registerSession(pid: number, database: string): Promise<string>;
}

export type OnNotice = (notice: NoticeMessage) => void;

/** The connection of a session of a worker. */
export function workerConnection(connection: ClientConfig, serverVersion: number): ClientConfig {
  return { ...connection, options: [connection.options, workerOptions(serverVersion)].filter(Boolean).join(' ') };
}

/**
 * Startup options of the session of a worker: unlike what SET sets, they survive DISCARD ALL.
 * Notices and LOG reach the controller; the role's own idle_session_timeout does not close a pooled session; a session
 * whose controller is gone does not stay.
 */
function workerOptions(serverVersion: number): string {
  const since14 = serverVersion >= 140_000 ? ' -c idle_session_timeout=0 -c client_connection_check_interval=5s' : '';
  return `-c client_min_messages=log -c tcp_user_timeout=10s${since14}`;
}

export class Session {
  readonly database: string;
  readonly backend: Backend;
  readonly closed: Promise<void>;
  alive = true;
  readonly #client: pg.Client;
  readonly #guard: Guard;
  #onNotice: OnNotice | undefined;

  private constructor(client: pg.Client, database: string, backend: Backend) {
    this.#client = client;
    this.#guard = Guard.attach(streamOf(client));
    this.database = database;
    this.backend = backend;
    this.closed = new Promise((resolve) => {
      client.once('end', () => {
        this.alive = false;
        resolve();
      });
    });
    client.on('notice', (notice) => this.#onNotice?.(notice));
  }

  static async open(config: ClientConfig, registry: SessionRegistry): Promise<Session> {
    const database = String(config.database);
    const client = new pg.Client({ ...config, keepAlive: true });
    client.on('error', ignore);
    await client.connect();
    try {
      const pid = await backendPid(client);
      const backendStart = await registry.registerSession(pid, database);
      return new Session(client, database, { pid, backendStart });
    } catch (error) {
      await endClient(client);
      throw error;
    }
  }

  /** Runs a command of a worker; its notices go to `onNotice`. After a FATAL it resolves when the backend is gone. */
  async run(command: string, onNotice: OnNotice): Promise<StatementResult> {
    this.#onNotice = onNotice;
    this.#guard.discarding = true;
    const result = await this.#client.query(new Statement(command)).finished;
    this.#guard.discarding = false;
    if (isFatal(result.error)) await this.closed;
    return result;
  }

  /** Runs a statement of ours, on behalf of the worker: its settings, or the brackets of an atomic run. */
  async ask(text: string, values: unknown[] = []): Promise<string | null> {
    const result = await this.#client.query<Record<string, string | null>>({ text, values });
    return Object.values(result.rows[0] ?? {})[0] ?? null;
  }

  /** Takes back everything the last run left: its transaction, settings, temporary tables, locks. False: it cannot be used again. */
  async reset(): Promise<boolean> {
    this.#onNotice = undefined;
    try {
      if (this.#client.getTransactionStatus() !== 'I') await this.#client.query('ROLLBACK');
      // A cancel that came too late for its statement may hit this one instead.
      await this.#client.query('DISCARD ALL').catch(() => this.#client.query('DISCARD ALL'));
      return this.alive;
    } catch {
      return false;
    }
  }

  /** Drops the connection, whatever runs behind it. */
  abandon(): void {
    this.alive = false;
    streamOf(this.#client).destroy();
  }

  /** Closes an idle session. */
  async close(): Promise<void> {
    await endClient(this.#client);
  }
}

/** The pid by the protocol and the pid of the backend differ behind a pooler: nothing could be cancelled there. */
async function backendPid(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ pid: number }>('SELECT pg_catalog.pg_backend_pid() AS pid');
  const pid = rows[0]?.pid;
  const { processID } = client as pg.Client & { processID: number | null };
  if (pid === undefined || pid !== processID) {
    throw new BgwError('WK203', {
      message: 'cannot work through a connection pooler',
      detail: `The protocol names backend ${processID}, the server answers as ${pid}.`,
      hint: 'Point the controller at the server itself.  Clients that launch workers may use the pooler.',
    });
  }
  return pid;
}

function isFatal(error: Error | undefined): boolean {
  const severity = (error as { severity?: string } | undefined)?.severity;
  return severity === 'FATAL' || severity === 'PANIC';
}

function ignore(): void {}
