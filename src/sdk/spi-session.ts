/**
 * The session of a worker: opened when first needed, closed when it has been idle for a while; one transaction at a time.
 * PostgreSQL counterpart: BackgroundWorkerInitializeConnection, StartTransactionCommand, CommitTransactionCommand.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import type { Client, ClientConfig, QueryConfig } from 'pg';
import { BgwError } from '../errors.ts';
import pg from './pg.ts';
import type { PreparedSession } from './prepared-session.ts';
import { type OpenHooks, openSession, runStatement, type Session } from './session.ts';
import type { Spi } from './spi.ts';
import { noTransaction } from './spi-errors.ts';
import { identifyAgain } from './spi-identity.ts';
import { forgetPlans, type TransactionHooks, TransactionSpi } from './spi-transaction.ts';

export interface SessionHooks extends TransactionHooks, OpenHooks {
  handle: string;
  /** Taken over in place of the first session, if it can be. */
  prepared: PreparedSession | undefined;
  /** Called when a prepared session is used. */
  used: (pid: number) => void;
  /** The session that listens was lost. */
  lost: () => void;
}

/** Idle sessions cost the server memory, and can stand in the way of DROP DATABASE. */
const IDLE_FOR = 60_000;
/** A worker whose controller is gone has less than a second (ORPHAN_GRACE). */
const TERMINATE_WITHIN = 700;

export class SpiSession {
  readonly #config: ClientConfig;
  readonly #hooks: SessionHooks;
  readonly #channels = new Map<string, (payload: string) => void>();
  /** The transaction that the calling code is inside of: a call from elsewhere waits for its end instead of joining it. */
  readonly #inside = new AsyncLocalStorage<TransactionSpi>();
  #client: Client | undefined;
  #pid: number | undefined;
  /** The errors by which a connection was lost. */
  readonly #losses = new WeakSet<object>();
  /** Resolves when what was asked for before has ended. */
  #turn: Promise<unknown> = Promise.resolve();
  /** How many have their turn: one, and those that were open when their session was closed. */
  #working = 0;
  #idleTimer: NodeJS.Timeout | undefined;

  constructor(config: ClientConfig, hooks: SessionHooks) {
    this.#config = config;
    this.#hooks = hooks;
  }

  /**
   * Runs `work` in a transaction: in the one that the caller is inside of, or a new one, which it commits or rolls back.
   * Errors: 25P01 the one that the caller is inside of is being committed or rolled back, or was rolled back.
   */
  async transaction<Result>(work: (spi: Spi) => Promise<Result>): Promise<Result> {
    const outer = this.#inside.getStore();
    if (outer?.isOpen) return work(outer);
    // Of a transaction that is rolled back nothing may stay, nor run behind one that is being committed.
    if (outer && !outer.isCommitted) throw noTransaction();
    return this.#inTurn(async (client) => {
      await runStatement(client, 'BEGIN');
      const spi = new TransactionSpi(client, this.#hooks);
      try {
        const result = await this.#inside.run(spi, () => work(spi));
        await commit(client, spi);
        spi.end(true);
        return result;
      } catch (error) {
        spi.close();
        // A connection that is lost has rolled back by itself.
        await runStatement(client, 'ROLLBACK').catch(() => {
          this.#forget(client);
          this.#noteLoss(error);
        });
        spi.end(false);
        throw error;
      }
    });
  }

  /** Runs one statement outside of a transaction block. Errors: 25001 inside of one. */
  async command(text: string): Promise<void> {
    if (this.#inside.getStore()?.isOpen) {
      throw new BgwError('25001', {
        message: 'a command cannot run inside a transaction',
        hint: 'Call bgw.command outside of bgw.transaction.',
      });
    }
    await this.#inTurn(async (client) => {
      const { command } = await runStatement(client, { text, queryMode: 'extended' } as QueryConfig);
      forgetPlans(client, command);
      await identifyAgain(client, command);
      if (command === 'DISCARD') await this.#listenTo(client);
    });
  }

  /**
   * Calls `heard` with the payload of each notification of the channel.  The session stays open for it.
   * Inside of a transaction it begins at its end, however that ends.
   * Errors: 22023 the server would cut or refuse such a name.
   */
  async listen(channel: string, heard: (payload: string) => void): Promise<void> {
    checkChannel(channel);
    const begin = (): Promise<void> => this.#beginToListen(channel, heard);
    const open = this.#inside.getStore();
    if (!open?.isOpen) return begin();
    // A rollback would take it back.
    open.onEnd(() => {
      begin().catch(this.#hooks.warn);
    });
  }

  /** After a loss: opens a session that listens to every channel again. */
  async relisten(): Promise<void> {
    await this.#inTurn(() => Promise.resolve());
  }

  /** What is open in the session ends with it, and nobody waits for it any longer. */
  async close(): Promise<void> {
    clearTimeout(this.#idleTimer);
    const client = this.#client;
    this.#client = undefined;
    this.#turn = Promise.resolve();
    await this.#hooks.prepared?.close();
    const closed = client?.end();
    // After the end of the worker the controller ends a backend whose statement still runs.
    if (this.#working === 0) await closed;
    else void closed?.catch(() => undefined);
  }

  /** Ends the backend, by another session: it would not notice the end of this process before its statement ends. */
  async terminate(): Promise<void> {
    if (!this.#client || this.#pid === undefined) return;
    const client = new pg.Client({ ...this.#config, connectionTimeoutMillis: TERMINATE_WITHIN });
    client.on('error', () => undefined);
    await client.connect();
    await client.query('SELECT pg_catalog.pg_terminate_backend($1)', [this.#pid]);
    await client.end();
  }

  /** Whether it is because of this error that there is no session. */
  isLostBy(error: unknown): boolean {
    return typeof error === 'object' && error !== null && this.#losses.has(error);
  }

  #noteLoss(error: unknown): void {
    if (typeof error === 'object' && error !== null) this.#losses.add(error);
  }

  /** A channel that was refused would be refused in every session. */
  async #beginToListen(channel: string, heard: (payload: string) => void): Promise<void> {
    const before = this.#channels.get(channel);
    this.#channels.set(channel, heard);
    try {
      await this.#inTurn((client) => listenTo(client, channel));
    } catch (error) {
      if (before) this.#channels.set(channel, before);
      else this.#channels.delete(channel);
      throw error;
    }
  }

  /** It is lost. The next transaction opens another. */
  #forget(client: Client): void {
    if (this.#client !== client) return;
    this.#client = undefined;
    if (this.#channels.size > 0) this.#hooks.lost();
  }

  async #inTurn<Result>(work: (client: Client) => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(async () => {
      this.#working += 1;
      try {
        return await work(await this.#connect());
      } finally {
        this.#working -= 1;
      }
    });
    this.#turn = result
      .catch(() => undefined)
      .then(() => {
        if (this.#channels.size === 0) this.#idleTimer = setTimeout(() => void this.close(), IDLE_FOR).unref();
      });
    return result;
  }

  async #connect(): Promise<Client> {
    clearTimeout(this.#idleTimer);
    if (this.#client) return this.#client;
    let client: Client | undefined;
    try {
      const session = (await this.#takeOver()) ?? (await openSession(this.#config, this.#hooks));
      client = session.client;
      client.on('error', (error) => this.#noteLoss(error));
      client.once('end', () => this.#forget(session.client));
      client.on('notification', ({ channel, payload }) => this.#channels.get(channel)?.(payload ?? ''));
      await this.#listenTo(client);
      this.#client = client;
      this.#pid = session.pid;
      return client;
    } catch (error) {
      this.#noteLoss(error);
      await client?.end().catch(() => undefined);
      throw error;
    }
  }

  async #takeOver(): Promise<Session | undefined> {
    const { prepared, handle, notice, used } = this.#hooks;
    const applicationName = String(this.#config.application_name);
    const session = await prepared?.take({ applicationName, handle }, notice);
    if (session) used(session.pid);
    return session;
  }

  async #listenTo(client: Client): Promise<void> {
    for (const channel of this.#channels.keys()) await listenTo(client, channel);
  }
}

function checkChannel(channel: string): void {
  if (channel !== '' && !channel.includes('\0') && Buffer.byteLength(channel) <= 63) return;
  throw new BgwError('22023', {
    message: `invalid channel name: "${channel.replaceAll('\0', '\\0')}"`,
    detail: 'A name has 1 to 63 bytes.',
  });
}

async function listenTo(client: Client, channel: string): Promise<void> {
  await client.query(`LISTEN ${client.escapeIdentifier(channel)}`);
}

/** Errors: 25P02 an error was caught and not rolled back, 2D000 the work ended the transaction itself. */
async function commit(client: Client, spi: TransactionSpi): Promise<void> {
  const status = client.getTransactionStatus();
  if (status === 'I') {
    throw new BgwError('2D000', {
      message: 'the work of bgw.transaction ended its transaction',
      hint: 'It is committed when the work returns, and rolled back when it throws.',
    });
  }
  spi.close();
  const { command } = await runStatement(client, 'COMMIT');
  if (command === 'ROLLBACK') {
    throw new BgwError('25P02', {
      message: 'the transaction was rolled back: one of its statements had failed',
      hint: 'Let the error through, or run what may fail in spi.subtransaction.',
    });
  }
}
