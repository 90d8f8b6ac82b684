/**
 * One pooled session: a backend of one (database, owner) for its whole life, reset between runs (HARDENING A3).
 * Registered with the control plane before it runs any user text (B3); ended only when its backend is gone (I11).
 */
import type { ClientConfig } from 'pg';
import pg from 'pg';
import { BgwError } from '../errors.ts';
import { endClient, streamOf } from './end.ts';
import { type Reply, type Statement, Wire } from './wire.ts';

export interface Backend {
  pid: number;
  /** As text: pg_stat_activity has microseconds, a Date does not. */
  backendStart: string;
}

export interface SessionRegistry {
  /** Registers a backend of this node; returns its start time. */
  registerSession(pid: number, database: string): Promise<string>;
}

/** A command of a worker, and what is said to the server before it. */
export interface Bracketed {
  /** Statements of ours. */
  before: Statement[];
  /** What of them the server may refuse: the same text again is sure to be taken. */
  configuration: string;
  command: Statement;
}

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
  readonly #wire: Wire;
  /** The last configuration that the server took. */
  #configuration: string | undefined;
  /** Whether nothing is left of the last run. */
  #isReset = true;

  private constructor(client: pg.Client, database: string, backend: Backend) {
    this.#client = client;
    this.#wire = new Wire(streamOf(client));
    this.database = database;
    this.backend = backend;
    this.closed = new Promise((resolve) => {
      client.once('end', () => {
        this.alive = false;
        resolve();
      });
    });
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

  /**
   * Runs a command of a worker, in one round trip where that can be.  Resolves with the replies up to that of the command,
   * or to the first error; after a FATAL when the backend is gone.  `isLast`: the session is reset with it.
   */
  async run({ before, configuration, command }: Bracketed, { isLast }: { isLast: boolean }): Promise<Reply[]> {
    this.#isReset = false;
    const replies: Reply[] = [];
    if (this.#configuration !== configuration) {
      replies.push(...(await this.#wire.send(before)));
      if (replies.some(({ error }) => error)) return replies;
      this.#configuration = configuration;
    }
    const rest = replies.length > 0 ? [command] : [...before, command];
    // COPY FROM STDIN would read the next statement as its data.
    if (isLast && !READS_CLIENT.test(command.text)) await this.#sendAndReset(rest, replies);
    else replies.push(...(await this.#wire.send(rest)));
    if (isFatal(replies.at(-1)?.error)) await this.closed;
    return replies;
  }

  /** Ends a run with statements of ours, and resets the session. */
  async finish(statements: readonly Statement[]): Promise<Reply[]> {
    const replies: Reply[] = [];
    await this.#sendAndReset(statements, replies);
    return replies;
  }

  /** Takes back everything the last run left: its transaction, settings, temporary tables, locks. False: it cannot be used again. */
  async reset(): Promise<boolean> {
    for (let attempt = 0; !this.#isReset && attempt < 2 && this.alive; attempt += 1) {
      // A cancel that came too late for its statement may hit this one instead.
      await this.#sendAndReset(this.#wire.status === 'I' ? [] : [{ text: 'ROLLBACK' }], []);
    }
    return this.#isReset && this.alive;
  }

  async #sendAndReset(statements: readonly Statement[], replies: Reply[]): Promise<void> {
    replies.push(...(await this.#wire.send([...statements, RESET])));
    this.#isReset = !replies.pop()?.error;
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

const RESET: Statement = { text: 'DISCARD ALL' };
const READS_CLIENT = /\bstdin\b/i;

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
