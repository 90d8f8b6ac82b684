/**
 * The process of a TypeScript worker, forked by src/hosts/process-host.ts: waits for what to run, runs it, ends.
 * Also loads a library for src/libraries.ts, so that code of users never runs in the controller.
 * PostgreSQL counterpart: BackgroundWorkerMain.  Exit codes: 0 done, 1 an error; anything else is a crash.
 */
import { BgwError, describeError } from '../errors.ts';
import type { ToController, ToWorker, WorkerStart } from './channel.ts';
import { runInit, type WorkerFunction } from './library.ts';
import { Worker, type WorkerSignal } from './worker.ts';

/** A worker that does not notice that its controller is gone is ended after this. */
const ORPHAN_GRACE = 900;

let worker: Worker | undefined;
const registrations = new Map<number, () => void>();

process.on('message', (message: ToWorker) => {
  switch (message.kind) {
    case 'run':
      void run(message);
      return;
    case 'init':
      void init(message);
      return;
    case 'signal':
      worker?.deliver(message.signal, message.settings);
      return;
    case 'registered':
      registrations.get(message.pid)?.();
      return;
    default:
      message satisfies never;
  }
});

for (const signal of ['SIGHUP', 'SIGTERM', 'SIGINT'] satisfies WorkerSignal[]) {
  process.on(signal, () => worker?.deliver(signal));
}

process.on('disconnect', () => {
  if (!worker) process.exit(1);
  worker.orphan();
  setTimeout(() => process.exit(1), ORPHAN_GRACE).unref();
});

process.on('uncaughtException', (error) => void fail(error));
process.on('unhandledRejection', (reason) => void fail(reason));

async function run(start: WorkerStart): Promise<void> {
  process.title = `bgworker: ${start.name}`;
  worker = new Worker({ ...start, connection: start.connection, send, register });
  try {
    const main = await loadFunction(start);
    send({ kind: 'started' });
    await main(worker, start.mainArg === null ? null : (JSON.parse(start.mainArg) as unknown));
    await worker.finish();
    leave(0);
  } catch (error) {
    await fail(error);
  }
}

async function loadFunction({ library, functionName, name, settings }: WorkerStart): Promise<WorkerFunction> {
  const module = (await import(library)) as Record<string, unknown>;
  const libraryName = (module['default'] as { name?: string } | undefined)?.name ?? '';
  runInit(module, {
    name: libraryName,
    preloaded: false,
    values: new Map(settings.map((setting) => [setting.name, setting.setting])),
  });
  const found = module[functionName];
  if (typeof found === 'function') return found as WorkerFunction;
  throw new BgwError('42883', {
    message: `function "${functionName}" of worker "${name}" does not exist`,
    detail: `Library "${libraryName}" exports: ${Object.keys(module).join(', ')}.`,
  });
}

async function init({ library, name, preloaded, settings }: Extract<ToWorker, { kind: 'init' }>): Promise<void> {
  try {
    const module = (await import(library)) as Record<string, unknown>;
    send({
      kind: 'defined',
      ...runInit(module, {
        name,
        preloaded,
        values: new Map(settings.map((setting) => [setting.name, setting.setting])),
      }),
    });
    leave(0);
  } catch (error) {
    await fail(error);
  }
}

async function register(pid: number): Promise<void> {
  const registered = new Promise<void>((resolve) => registrations.set(pid, resolve));
  send({ kind: 'session', pid });
  await registered;
  registrations.delete(pid);
}

async function fail(reason: unknown): Promise<void> {
  send({ kind: 'failed', error: describeError(reason) });
  await worker?.finish().catch(() => undefined);
  leave(1);
}

/** Ends when everything that was said has been sent. */
function leave(exitCode: number): void {
  process.exitCode = exitCode;
  if (!process.connected) process.exit(exitCode);
  process.send?.({ kind: 'leaving' }, undefined, undefined, () => process.exit(exitCode));
}

function send(message: ToController): void {
  if (process.connected) process.send?.(message);
}
