/**
 * Opens a session for a worker.  Its controller knows the backend before the session runs anything of the worker: exactly
 * the registered ones are ended when the node is fenced (HARDENING B3).
 */
import type { Client, ClientConfig, QueryConfig, QueryResult, QueryResultRow } from 'pg';
import type { EventEmitter } from 'node:events';
import type { Duplex } from 'node:stream';
import type { NoticeMessage } from 'pg-protocol/dist/messages.js';
import { BgwError } from '../errors.ts';
import pg from './pg.ts';

export interface Session {
  readonly client: Client;
  /** Of its backend. */
  readonly pid: number;
}

export interface OpenHooks {
  /** Resolves when the controller knows the backend. */
  register: (pid: number) => Promise<void>;
  /** `lost`: its backend may still be there. */
  closed: (pid: number, lost: boolean) => void;
  notice: (notice: NoticeMessage) => void;
}

/** Of silence; a listener whose network is gone has nothing else to notice it by. */
const PROBE_AFTER = 10_000;

/** Why the sessions were lost that are. */
const losses = new WeakMap<Client, Error>();

/** Runs a statement.  Errors: those of the server; of a session that was lost, why: the server has said so between two statements. */
export async function runStatement<Row extends QueryResultRow>(
  client: Client,
  statement: string | QueryConfig,
): Promise<QueryResult<Row>> {
  const loss = losses.get(client);
  if (loss) throw loss;
  inFlight.set(client, (inFlight.get(client) ?? 0) + 1);
  try {
    return await client.query<Row>(statement);
  } catch (error) {
    if (!copying.has(client)) throw error;
    // Of a session that is ended for it, it is the error of all that was sent.
    if (!losses.has(client)) copying.delete(client);
    throw copyRefused(error);
  } finally {
    inFlight.set(client, (inFlight.get(client) ?? 1) - 1);
  }
}

/** How many statements have been sent whose end is not known. */
const inFlight = new WeakMap<Client, number>();

/** Sessions in which the server waits for the rows of a COPY, until that has failed. */
const copying = new WeakSet<Client>();

/**
 * pg sends CopyFail; the Sync that it has sent before was ignored, for it came in the middle of the COPY.  Of what else was
 * sent behind it the server makes nothing: PostgreSQL 13 drops it without an answer, later ones end the session.
 */
function refuseCopy(client: Client): void {
  const { connection } = client as Client & { connection: EventEmitter & { sync: () => void; stream: Duplex } };
  connection.on('copyInResponse', () => {
    copying.add(client);
    if (inFlight.get(client) === 1) {
      connection.sync();
    } else {
      losses.set(client, copyRefused());
      connection.stream.destroy();
    }
  });
}

function copyRefused(cause?: unknown): BgwError {
  return new BgwError('0A000', {
    message: 'COPY FROM STDIN is not possible in a background worker',
    hint: 'Copy from a file of the server, or insert rows.',
    cause,
  });
}

/** Errors: those of the server, and of `register`. */
export async function openSession(config: ClientConfig, { register, closed, notice }: OpenHooks): Promise<Session> {
  const client = new pg.Client({
    ...config,
    keepAlive: true,
    keepAliveInitialDelayMillis: PROBE_AFTER,
    pipeline: true,
  });
  // The statement in flight says so, or the next one; what comes after the first error is its consequence.
  client.on('error', (error) => losses.has(client) || losses.set(client, error));
  client.on('notice', notice);
  try {
    await client.connect();
    refuseCopy(client);
    const pid = pidOf(client);
    client.once('end', () => closed(pid, losses.has(client)));
    await register(pid);
    return { client, pid };
  } catch (error) {
    await client.end().catch(() => undefined);
    throw error;
  }
}

/** As the protocol names it: the controller has found no pooler between here and the server (WK203). */
function pidOf(client: Client): number {
  return (client as Client & { processID: number }).processID;
}
