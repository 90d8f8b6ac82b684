/**
 * The process of a TypeScript worker, forked by src/hosts/fork.ts, or its thread, started by src/sdk/shared-memory-main.ts:
 * waits for what to run, runs it, ends.  Also loads a library for src/libraries.ts, so that code of users never runs in the controller.
 * PostgreSQL counterpart: BackgroundWorkerMain.  Exit codes: 0 done, 1 an error; anything else is a crash.
 */
import { BgwError } from '../errors.ts';
import { ORPHAN_GRACE, type ToWorker, type WorkerStart } from './channel.ts';
import { describeThrown } from './error-context.ts';
import { importLibrary, runInit, type WorkerFunction } from './library.ts';
import { openPort } from './port.ts';
import { PreparedSession } from './prepared-session.ts';
import { Worker } from './worker.ts';

const port = openPort();
let worker: Worker | undefined;
let prepared: PreparedSession | undefined;
/** URL of the library that it runs something of. */
let library = import.meta.url;
let isOrphaned = false;
const registrations = new Map<number, { resolve: () => void; reject: (error: BgwError) => void }>();

port.onMessage((message) => {
  switch (message.kind) {
    case 'run':
      void run(message);
      return;
    case 'init':
      void init(message);
      return;
    case 'signal':
      worker?.deliver(message.signal, message);
      return;
    case 'prepare':
      prepare(message);
      return;
    case 'registered':
      if (message.error)
        registrations.get(message.pid)?.reject(new BgwError(message.error.code ?? 'XX000', message.error));
      else registrations.get(message.pid)?.resolve();
      return;
    default:
      message satisfies never;
  }
});

port.onSignal((signal) => worker?.deliver(signal));

port.onClose(() => {
  if (!worker) process.exit(1);
  isOrphaned = true;
  worker.orphan();
  for (const { reject } of registrations.values()) reject(orphaned());
  setTimeout(() => process.exit(1), ORPHAN_GRACE).unref();
});

process.on('uncaughtException', (error) => void fail(error));
process.on('unhandledRejection', (reason) => void fail(reason));

async function run(start: WorkerStart): Promise<void> {
  library = start.library;
  port.setTitle(`bgworker: ${start.name}`);
  worker = new Worker({
    ...start,
    prepared,
    send: port.send,
    register,
    closed: sessionClosed,
    sharedMemory: port.sharedMemory,
    setTitle: port.setTitle,
  });
  try {
    const main = await loadFunction(start, worker);
    port.send({ kind: 'started' });
    await main(worker, start.mainArg === null ? null : (JSON.parse(start.mainArg) as unknown));
    await worker.finish({ returned: true });
    port.leave(0);
  } catch (error) {
    await fail(error);
  }
}

function prepare({ connection, keepFor }: Extract<ToWorker, { kind: 'prepare' }>): void {
  void import('./index.ts'); // as its library will
  if (connection) prepared = new PreparedSession({ connection, keepFor, register, closed: sessionClosed });
}

async function loadFunction({ functionName, name, settings }: WorkerStart, of: Worker): Promise<WorkerFunction> {
  const module = await importLibrary(library);
  const libraryName = (module['default'] as { name?: string } | undefined)?.name ?? '';
  const { gucs } = runInit(module, {
    name: libraryName,
    preloaded: false,
    values: new Map(settings.map((setting) => [setting.name, setting.setting])),
  });
  of.installHooks(gucs);
  const found = module[functionName];
  if (typeof found === 'function') return found as WorkerFunction;
  throw new BgwError('42883', {
    message: `function "${functionName}" of worker "${name}" does not exist`,
    detail: `Library "${libraryName}" exports: ${Object.keys(module).join(', ')}.`,
  });
}

async function init(message: Extract<ToWorker, { kind: 'init' }>): Promise<void> {
  library = message.library;
  try {
    const module = await importLibrary(library);
    const { definitions } = runInit(module, {
      name: message.name,
      preloaded: message.preloaded,
      values: new Map(message.settings.map((setting) => [setting.name, setting.setting])),
    });
    port.send({ kind: 'defined', ...definitions });
    port.leave(0);
  } catch (error) {
    await fail(error);
  }
}

/** Without a controller that knows of it, nobody would end a session: it is not used. */
async function register(pid: number): Promise<void> {
  if (isOrphaned) throw orphaned();
  const registered = new Promise<void>((resolve, reject) => registrations.set(pid, { resolve, reject }));
  port.send({ kind: 'session', pid });
  try {
    await registered;
  } finally {
    registrations.delete(pid);
  }
}

function sessionClosed(pid: number, lost: boolean): void {
  registrations
    .get(pid)
    ?.reject(new BgwError('08006', { message: 'the session was lost before it could be registered' }));
  port.send({ kind: 'session_closed', pid, lost });
}

function orphaned(): BgwError {
  return new BgwError('57P01', { message: 'the controller of the worker is gone' });
}

async function fail(reason: unknown): Promise<void> {
  port.send({ kind: 'failed', error: describeThrown(reason, library) });
  await worker?.finish().catch(() => undefined); // the session is lost: it has told why it failed
  port.leave(1);
}
