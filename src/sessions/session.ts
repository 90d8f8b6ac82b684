/**
 * One pooled session: a backend of one (database, owner) for its whole life, reset between runs (HARDENING A3).
 * Registered with the control plane before it runs any user text (B3); ended only when its backend is gone (I11).
 */
import type { ClientConfig } from 'pg';
import pg from 'pg';
import { describeError, explainConnection } from '../errors.ts';
import type { SettingValue } from '../orders.ts';
import { Configuration, type Opening } from './configuration.ts';
import { endClient, streamOf } from './end.ts';
import { checkBackend } from './pooler.ts';
import { type Notice, type Reply, type Statement, Wire } from './wire.ts';

export interface Backend {
  pid: number;
  /** As text: pg_stat_activity has microseconds, a Date does not. */
  backendStart: string;
}

export interface SessionRegistry {
  /** Registers a backend of this node; returns its start time. */
  registerSession(pid: number, database: string): Promise<string>;
}

/** A command of a worker, and what is said to the server before and after it. */
export interface Bracketed {
  before: readonly string[];
  /** Parameters of the run. */
  names: Readonly<Record<string, string>>;
  /** Of the worker. */
  settings: readonly SettingValue[];
  command: Statement;
  after: readonly string[];
  /** All of it may go in one statement, where it means the same. */
  isOneOfMany: boolean;
}

/** What became of it: the reply to the command, and the first error of all. */
export type Outcome = Pick<Reply, 'commandTag' | 'rows' | 'error'>;

export class Session {
  readonly database: string;
  readonly backend: Backend;
  readonly closed: Promise<void>;
  alive = true;
  /** Whether the connection was lost, once it is closed: its backend may go on with what it does. */
  isLost = false;
  #hasLeft = false;
  readonly #client: pg.Client;
  readonly #wire: Wire;
  readonly #configuration: Configuration;
  /** The last difference from it that the server took. */
  #taken = '';
  /** Whether nothing is left of the last run. */
  #isReset = true;

  private constructor(client: pg.Client, configuration: Configuration, database: string, backend: Backend) {
    this.#client = client;
    this.#configuration = configuration;
    this.#wire = new Wire(streamOf(client));
    this.database = database;
    this.backend = backend;
    this.closed = new Promise((resolve) => {
      const end = (): void => {
        this.alive = false;
        this.isLost = !this.#hasLeft && !this.#wire.isEnding;
        resolve();
      };
      // It may have been lost while it was registered.
      if (streamOf(client).destroyed) end();
      else client.once('end', end);
    });
  }

  /** Opens one for a worker with these settings and names, and for others. */
  static async open(config: ClientConfig, opening: Opening, registry: SessionRegistry): Promise<Session> {
    const database = String(config.database);
    let configuration = new Configuration(opening);
    const client = await connect(config, configuration).catch((error: unknown) => {
      if (!isRefusal(error)) throw error;
      // A setting of an extension that the server has loaded, say: the run that sets it says so.
      configuration = new Configuration({ settings: [], names: {} });
      return connect(config, configuration);
    });
    try {
      const { rows } = await client.query<{ pid: number }>('SELECT pg_catalog.pg_backend_pid() AS pid');
      const pid = checkBackend(client, rows[0]?.pid);
      const backendStart = await registry.registerSession(pid, database);
      return new Session(client, configuration, database, { pid, backendStart });
    } catch (error) {
      await endClient(client);
      throw error;
    }
  }

  /**
   * Runs a command of a worker, and resets the session, in one round trip where that can be.  Resolves after a FATAL when the
   * backend is gone.
   */
  async run({ before, names, settings, command, after, isOneOfMany }: Bracketed): Promise<Outcome> {
    this.#isReset = false;
    const difference = this.#configuration.difference(settings);
    const opening = [...before, ...this.#configuration.naming(names)];
    if (difference) opening.unshift(difference);
    // Nothing behind a COMMIT: a cancel that came during it would be an error of what has been done.
    const closing = [NO_TIMEOUT, ...after];
    if (isOneOfMany && difference === this.#taken && isPlain(command.text))
      return this.#runWhole(opening, command, closing);

    const replies: Reply[] = [];
    const rest: Statement[] = [{ text: opening.join('; '), isOpening: true }, command];
    // Were a value refused, a command sent along would run without it; were the BEGIN cancelled, it would run without that.
    if (difference !== this.#taken || before.length > 0) {
      replies.push(...(await this.#wire.send(rest.splice(0, 1))));
      if (replies[0]?.error) return failure(replies[0].error);
      this.#taken = difference;
    }
    // COPY FROM STDIN would read the next statement as its data.
    if (READS_CLIENT.test(command.text)) replies.push(...(await this.#wire.send(rest.splice(0))));
    replies.push(...(await this.#sendAndReset([...rest, { text: closing.join('; ') }])));
    if (this.#wire.isEnding) await this.closed;
    const error = replies.slice(0, after.length > 0 ? Infinity : 2).find((reply) => reply.error)?.error;
    // DISCARD ALL has failed in it.
    if (!error && this.#wire.status === 'E') command.onNotice?.(LEFT_OPEN);
    return error ? failure(error) : (replies[1] as Reply);
  }

  /** What comes before the command, the command, and what comes behind it in one statement. */
  async #runWhole(opening: readonly string[], command: Statement, closing: readonly string[]): Promise<Outcome> {
    const text = `${opening.join('; ')}; ${command.text}; ${closing.join('; ')}`;
    const { onNotice } = command;
    const whole = { text, onNotice, isOpening: true, ahead: opening.length };
    const [reply] = (await this.#sendAndReset([whole])) as [Reply];
    if (this.#wire.isEnding) await this.closed;
    return reply.error ? failure(reply.error) : reply;
  }

  /** Whether another run can have it as it is. */
  get isClean(): boolean {
    return this.#isReset && this.alive;
  }

  /** Takes back everything the last run left: its transaction, settings, temporary tables, locks. False: it cannot be used again. */
  async reset(): Promise<boolean> {
    for (let attempt = 0; !this.#isReset && attempt < 2 && this.alive; attempt += 1) {
      // A cancel that came too late for its statement may hit this one instead.
      await this.#sendAndReset(this.#wire.status === 'I' ? [] : [{ text: 'ROLLBACK' }]);
    }
    return this.isClean;
  }

  /** Returns the replies to the statements. */
  async #sendAndReset(statements: readonly Statement[]): Promise<Reply[]> {
    const replies = await this.#wire.send([...statements, RESET]);
    this.#isReset = !replies.pop()?.error;
    return replies;
  }

  /** Drops the connection, whatever runs behind it. */
  abandon(): void {
    this.alive = false;
    this.#leave();
    streamOf(this.#client).destroy();
  }

  /** Closes an idle session. */
  async close(): Promise<void> {
    this.#leave();
    await endClient(this.#client);
  }

  /** Of a connection that is lost already, nobody takes leave. */
  #leave(): void {
    this.#hasLeft ||= !streamOf(this.#client).destroyed;
  }
}

async function connect(config: ClientConfig, configuration: Configuration): Promise<pg.Client> {
  const options = [config.options, configuration.options].filter(Boolean).join(' ');
  const client = new pg.Client({ ...config, options });
  client.on('error', ignore);
  try {
    await client.connect();
  } catch (error) {
    await endClient(client);
    throw explainConnection(error);
  }
  return client;
}

/** Of what was asked for, not of the connection. */
function isRefusal(error: unknown): boolean {
  return /^(22|42|55)/.test(describeError(error).code ?? '');
}

const RESET: Statement = { text: 'DISCARD ALL' };
/** What SQL workers are told that return in a transaction, as those in TypeScript are. */
const LEFT_OPEN: Notice = {
  severity: 'WARNING',
  code: '25000',
  message: 'the command left a transaction open: it is rolled back',
  detail: undefined,
  hint: undefined,
  where: undefined,
  routine: undefined,
};
const READS_CLIENT = /\bstdin\b/i;
/** One that a command leaves would count for the reset. */
const NO_TIMEOUT = 'SET statement_timeout = 0';

/** One statement that does the same in a transaction of several, whatever standard_conforming_strings is. */
const PLAIN =
  /^\s*(?:select|insert|update|delete|with|values|table)\b(?:[^'"$;\\/-]|'[^'\\]*'|"[^"]*"|-(?!-)|\/(?!\*))*;?\s*$/i;
/** Most are shorter, and no expression has to look at more. */
const LONGEST_PLAIN = 1000;

function isPlain(command: string): boolean {
  return command.length <= LONGEST_PLAIN && PLAIN.test(command) && !READS_CLIENT.test(command);
}

/** Without the command tag of what had been completed: as a rule the error has rolled it back. */
export function failure(error: Error): Outcome {
  return { commandTag: undefined, rows: undefined, error };
}

function ignore(): void {}
