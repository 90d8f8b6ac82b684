/** What a worker is made from, and what its calls take. */
import type { ClientConfig } from 'pg';
import type { NoticeMessage } from 'pg-protocol/dist/messages.js';
import { BgwError, type ErrorDescription } from '../errors.ts';
import { received, type SentConnection, type SettingMessage, type ToController } from './channel.ts';
import type { Cleanup } from './cleanups.ts';
import type { PreparedSession } from './prepared-session.ts';
import type { SharedMemory } from './shared-memory.ts';
import type { Identity } from './spi-identity.ts';
import type { WorkerSignal } from './signals.ts';

/** Levels of `bgw.ereport` below ERROR, which is `throw`. */
export type LogLevel = 'DEBUG' | 'LOG' | 'INFO' | 'NOTICE' | 'WARNING';

/** DETAIL, HINT and SQLSTATE of a log line. */
export interface LogFields {
  code?: string | undefined;
  detail?: string | undefined;
  hint?: string | undefined;
}

/** What one call sets; each has a default without it. */
export interface SetupOptions {
  /** Of the sessions that it opens from now on. Default: "bgworker: NAME", by which bgw_stat_standby finds it on a standby. */
  applicationName?: string;
  /** In ps, where a thread of the shared-memory host has none. Default: "bgworker: NAME". Longer than 80 bytes, it is cut. */
  processTitle?: string;
  /** What bgw_stat_activity says that it is doing. */
  activity?: string;
  /** See `onExit`. */
  onExit?: Cleanup;
  /** Handlers in place of the default ones; see `on`. */
  signals?: Partial<Record<WorkerSignal, () => void>>;
}

export interface WorkerContext {
  name: string;
  handle: string;
  /** URL of the module it is of. */
  library: string;
  flags: readonly string[];
  settings: readonly SettingMessage[];
  connection: SentConnection;
  send: (message: ToController) => void;
  /** Registers a backend with the controller, which answers when it may be used. */
  register: (pid: number) => Promise<void>;
  /** Says that it is closed. `lost`: its backend may still be there. */
  closed: (pid: number, lost: boolean) => void;
  /** Opened by the process before it was told what to run. */
  prepared: PreparedSession | undefined;
  /** With the flag shmem_access. */
  sharedMemory: SharedMemory | undefined;
  /** Shows it in ps. */
  setTitle: (title: string) => void;
}

/** The session of a worker, as pg_stat_activity shows it. */
export function identityOf({ name, handle }: WorkerContext): Identity {
  return { applicationName: `bgworker: ${name}`, handle };
}

export function connectionOf(context: WorkerContext): ClientConfig {
  const { connection, handle } = context;
  return {
    ...received(connection),
    application_name: identityOf(context).applicationName,
    // By it bgw_launch knows who launches.
    options: `${connection.options ?? ''} -c bgw.handle=${handle}`,
  };
}

const LEVELS: readonly string[] = ['DEBUG', 'LOG', 'INFO', 'NOTICE', 'WARNING'] satisfies LogLevel[];

/** A notice of the server, as a line of the worker; the server's debug levels have numbers, and its lc_messages may be of another language. */
export function logOf({ severity = 'NOTICE', message = '', code, detail, hint }: NoticeMessage): ToController {
  const level = severity.replace(/\d$/, '');
  const known = LEVELS.includes(level) ? level : code?.startsWith('01') ? 'WARNING' : 'NOTICE';
  const error = { severity: known, code: code === '00000' ? undefined : code, message, detail, hint };
  return { kind: 'log', severity: known, error };
}

/** A promise that nobody waited for. */
export function leakedTransaction(name: string): ErrorDescription {
  return {
    severity: 'WARNING',
    code: '25000',
    message: `background worker "${name}" returned while a transaction was open`,
    detail: 'The transaction is rolled back.',
    hint: 'Await every bgw.transaction.',
  };
}

/** Errors: 55000 the worker has no database connection. */
export function checkConnection({ name, flags }: WorkerContext): void {
  if (flags.includes('backend_database_connection')) return;
  throw missingFlag(`worker "${name}" has no database connection`, 'backend_database_connection');
}

/** Of a call that needs a flag. */
export function missingFlag(message: string, flag: string): BgwError {
  return new BgwError('55000', { message, hint: `Register it with the flag "${flag}".` });
}
