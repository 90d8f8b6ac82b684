/**
 * SQL from a worker: statements in transactions on a session of its owner, opened when first needed and closed when it
 * has been idle for a while.  PostgreSQL counterpart: SPI_connect, SPI_execute, StartTransactionCommand.
 */
import type { ClientConfig, QueryResultRow } from 'pg';
import pg from 'pg';

/** What a statement returned. */
export interface SpiResult<Row> {
  rows: Row[];
  /** How many rows it processed (SPI_processed). */
  processed: number;
  /** INSERT, SELECT, ... */
  command: string;
}

/** Inside a transaction. */
export interface Spi {
  /** Runs one statement with parameters $1, $2, ... Errors: those of the server, as pg's DatabaseError. */
  execute<Row extends QueryResultRow = QueryResultRow>(text: string, values?: unknown[]): Promise<SpiResult<Row>>;
}

export interface SessionHooks {
  /** Called with the backend before it runs anything; it runs nothing before this resolves. */
  register: (pid: number) => Promise<void>;
  closed: (pid: number) => void;
  notice: (message: string) => void;
}

/** Idle sessions cost the server memory, and can stand in the way of DROP DATABASE. */
const IDLE_FOR = 60_000;

export class SpiSession {
  readonly #config: ClientConfig;
  readonly #hooks: SessionHooks;
  #client: pg.Client | undefined;
  readonly #channels = new Map<string, () => void>();
  #open: Spi | undefined;
  #idleTimer: NodeJS.Timeout | undefined;

  constructor(config: ClientConfig, hooks: SessionHooks) {
    this.#config = config;
    this.#hooks = hooks;
  }

  /** Runs `work` in a transaction: a new one, which it commits or rolls back, or the one that is open already. */
  async transaction<Result>(work: (spi: Spi) => Promise<Result>): Promise<Result> {
    if (this.#open) return work(this.#open);
    const client = await this.#connect();
    await client.query('BEGIN');
    this.#open = { execute: (text, values) => execute(client, text, values) };
    try {
      const result = await work(this.#open);
      await client.query('COMMIT');
      return result;
    } catch (error) {
      // A connection that is lost has rolled back by itself.
      await client.query('ROLLBACK').catch(() => undefined);
      throw error;
    } finally {
      this.#open = undefined;
      if (this.#channels.size === 0) this.#idleTimer = setTimeout(() => void this.close(), IDLE_FOR).unref();
    }
  }

  /**
   * Calls `heard` at each notification of the channel.  The session stays open for it; after a loss the next transaction
   * opens another, so what must not be missed is to be looked up as well.
   */
  async listen(channel: string, heard: () => void): Promise<void> {
    this.#channels.set(channel, heard);
    const client = await this.#connect();
    await listenTo(client, channel);
  }

  async close(): Promise<void> {
    clearTimeout(this.#idleTimer);
    const client = this.#client;
    this.#client = undefined;
    await client?.end();
  }

  async #connect(): Promise<pg.Client> {
    clearTimeout(this.#idleTimer);
    if (this.#client) return this.#client;
    const client = new pg.Client({ ...this.#config, keepAlive: true, pipeline: true });
    client.on('error', () => undefined); // the statement in flight, or the next one, says so
    client.on('notice', ({ message }) => this.#hooks.notice(message ?? ''));
    await client.connect();
    const { rows } = await client.query<{ pid: number }>('SELECT pg_catalog.pg_backend_pid() AS pid');
    const pid = rows[0]?.pid ?? 0;
    client.once('end', () => {
      this.#hooks.closed(pid);
      if (this.#client === client) this.#client = undefined;
    });
    client.on('notification', ({ channel }) => this.#channels.get(channel)?.());
    await this.#hooks.register(pid);
    for (const channel of this.#channels.keys()) await listenTo(client, channel);
    this.#client = client;
    return client;
  }
}

async function listenTo(client: pg.Client, channel: string): Promise<void> {
  await client.query(`LISTEN ${client.escapeIdentifier(channel)}`);
}

async function execute<Row extends QueryResultRow>(
  client: pg.Client,
  text: string,
  values: unknown[] = [],
): Promise<SpiResult<Row>> {
  const { rows, rowCount, command } = await client.query<Row>(text, values);
  return { rows, processed: rowCount ?? 0, command };
}
