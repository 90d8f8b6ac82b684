/**
 * What the function of a TypeScript worker runs in, as process-host.ts sees it: an operating system process of its own,
 * or a thread of the shared-memory host (shared-memory-host.ts).
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import type { ToController, ToWorker } from '../sdk/channel.ts';
import { describeError } from '../errors.ts';
import type { Backend, SessionRegistry } from '../sessions/session.ts';

/** How it ended. */
export interface End {
  /** null: killed. */
  code: number | null;
  /** If it ended by no exit code of its own, in words: 'was terminated by signal SIGKILL'. */
  how?: string | undefined;
  /** What else belongs to the error. */
  sqlstate?: string | undefined;
  detail?: string | undefined;
  /** Shared memory was reset. */
  crashReset?: boolean | undefined;
}

export interface WorkerProcess {
  /** Its sessions that are registered, by pid. */
  readonly backends: Map<number, Backend>;
  readonly osPid: number | undefined;
  readonly stdout: Readable | null;
  readonly stderr: Readable | null;
  /** Never rejects. */
  readonly ended: Promise<End>;
  /** There is one handler: this one, from now on. */
  onMessage(handler: (message: ToController) => void): void;
  /** What is sent to a process that has ended is lost: `ended` says so. */
  send(message: ToWorker): void;
  /** Ends it by force. */
  kill(): void;
}

/** A forked process that runs one worker. */
export function workerProcess(child: ChildProcess): WorkerProcess {
  let receive: ((message: ToController) => void) | undefined;
  child.on('message', (message: ToController) => receive?.(message));
  return {
    backends: new Map(),
    osPid: child.pid,
    stdout: child.stdout,
    stderr: child.stderr,
    ended: exitOf(child).then(
      ({ code, signal }) => ({ code, how: signal ? `was terminated by signal ${signal}` : undefined }),
      (error: unknown) => ({ code: 1, how: `could not be started: ${describeError(error).message}` }),
    ),
    onMessage: (handler) => {
      receive = handler;
    },
    send: (message) => {
      if (child.connected) child.send(message, () => undefined);
    },
    kill: () => void child.kill('SIGKILL'),
  };
}

/** A process can leave its end of the channel to one of its own; what it sent itself is read long before. */
const DRAINED_WITHIN = 500;

export interface ProcessExit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/**
 * How a forked process ended.  Node.js can see its exit before its last message: resolves when the channel was read to its
 * end as well.  Errors: it could not be started.
 */
export async function exitOf(child: ChildProcess): Promise<ProcessExit> {
  const exit = await new Promise<ProcessExit>((resolve, reject) => {
    child.on('error', reject);
    child.once('exit', (code, signal) => resolve({ code, signal }));
  });
  if (!child.connected) return exit;
  const timeout = AbortSignal.timeout(DRAINED_WITHIN);
  await once(child, 'disconnect', { signal: timeout }).catch(async () => {
    await setImmediate(); // what has come while this process was busy
    if (child.connected) child.disconnect();
  });
  return exit;
}

export interface Registration {
  pid: number;
  database: string;
  server: SessionRegistry;
}

/** Registers a session that the process has opened, unless it is registered, and tells the process. undefined: it was refused. */
export async function registerBackend(
  { backends, send }: Pick<WorkerProcess, 'backends' | 'send'>,
  { pid, database, server }: Registration,
): Promise<Backend | undefined> {
  try {
    const backend = backends.get(pid) ?? { pid, backendStart: await server.registerSession(pid, database) };
    backends.set(pid, backend);
    send({ kind: 'registered', pid });
    return backend;
  } catch (error) {
    send({ kind: 'registered', pid, error: describeError(error) });
    return undefined;
  }
}
