/**
 * What a controller and a TypeScript worker say to each other, over the IPC channel of the fork; the shared-memory host
 * passes on what is for one of its threads, and what they say.  The channel is also the life line: a worker whose controller is gone sees it closed and ends (postmaster death).
 */
import type { ClientConfig } from 'pg';
import type { ErrorDescription } from '../errors.ts';

/** Milliseconds after which a worker is ended that does not notice that its controller is gone: all are within a second. */
export const ORPHAN_GRACE = 900;

/** A setting as a worker gets it; the same fields as in an order of the controller. */
export interface SettingMessage {
  name: string;
  vartype: string;
  setting: string;
  unit?: string | null;
  /** As SHOW prints it. */
  shown?: string | undefined;
}

/** The definition of a setting, by the columns of bgw.setting. */
export interface SettingDefinition {
  name: string;
  vartype: 'bool' | 'integer' | 'real' | 'string' | 'enum';
  boot_val: string;
  unit?: string | undefined;
  min_val?: number | undefined;
  max_val?: number | undefined;
  enumvals?: readonly string[] | undefined;
  context: 'internal' | 'postmaster' | 'sighup';
  short_desc: string;
}

/** The definition of a worker, by the columns of bgw.worker. */
export interface WorkerDefinition {
  name: string;
  type?: string | undefined;
  library_name: string;
  function_name: string;
  main_arg?: unknown;
  flags: readonly string[];
  start_time: string;
  /** An interval as text; null: never. */
  restart_time: string | null;
  restart_time_max: string | null;
  failure_limit?: number | undefined;
  failure_window: string | null;
  healthy_time: string | null;
  autostart: boolean;
  max_instances?: number | undefined;
}

export interface WorkerStart {
  kind: 'run';
  /** URL of the library's module. */
  library: string;
  functionName: string;
  name: string;
  handle: string;
  /** JSON as text, or null. */
  mainArg: string | null;
  flags: string[];
  settings: SettingMessage[];
  /** Connection of the owner's login: over this channel only, never in argv or the environment. Empty for a worker without sessions. */
  connection: SentConnection;
}

/** A connection as a message holds it: whether a certificate of any name will do is told by a function otherwise. */
export type SentConnection = ClientConfig & { takesAnyName?: boolean };

export function toSend({ ssl, ...connection }: ClientConfig): SentConnection {
  if (typeof ssl !== 'object') return ssl === undefined ? connection : { ...connection, ssl };
  const { checkServerIdentity, ...rest } = ssl;
  // Which pg has hidden from enumeration, once it has connected.
  const key = ssl.key === undefined ? {} : { key: ssl.key };
  return { ...connection, ssl: { ...rest, ...key }, ...(checkServerIdentity ? { takesAnyName: true } : {}) };
}

export function received({ takesAnyName, ...connection }: SentConnection): ClientConfig {
  if (!takesAnyName || typeof connection.ssl !== 'object') return connection;
  return { ...connection, ssl: { ...connection.ssl, checkServerIdentity: () => undefined } };
}

export type ToWorker =
  | WorkerStart
  | { kind: 'init'; library: string; name: string; preloaded: boolean; settings: SettingMessage[] }
  | {
      kind: 'signal';
      signal: 'SIGHUP' | 'SIGTERM' | 'SIGINT' | 'SIGUSR1';
      /** A worker that was started before the database could be reached gets its handle later. */
      handle: string;
      settings?: SettingMessage[];
    }
  /** A worker is to come, with that connection: open a session for it, and keep it for so many milliseconds. */
  | { kind: 'prepare'; connection: SentConnection | undefined; keepFor: number }
  /** With an error it is refused. */
  | { kind: 'registered'; pid: number; error?: ErrorDescription };

export type ToController =
  | { kind: 'defined'; settings: SettingDefinition[]; workers: WorkerDefinition[]; prefixes: string[] }
  | { kind: 'started' }
  | { kind: 'session'; pid: number }
  /** `lost`: not by the worker; its backend may not have noticed. */
  | { kind: 'session_closed'; pid: number; lost: boolean }
  /** Cancel what its sessions are running. */
  | { kind: 'cancel' }
  | { kind: 'activity'; state: string; query: string | null }
  | { kind: 'log'; severity: string; error: ErrorDescription }
  | { kind: 'failed'; error: ErrorDescription };

/** To the shared-memory host: for one of its threads, named by run id. The message `run` starts it. */
export interface ToHost {
  thread: string;
  message: ToWorker;
}

/** From the shared-memory host: of one of its threads. */
export type FromHost = { thread: string } & (
  | { kind: 'said'; message: ToController }
  | { kind: 'output'; stream: 'stdout' | 'stderr'; chunk: Uint8Array }
  /** The thread has ended; `crash` says how, if it was a crash: then the host ends itself. */
  | { kind: 'ended'; code: number | null; crash: string | undefined }
);
