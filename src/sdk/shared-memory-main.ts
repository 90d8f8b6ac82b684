/**
 * The shared-memory host: the process, forked by src/hosts/shared-memory-host.ts, whose threads are the workers of this
 * node with the flag shmem_access.  Its main thread runs no code of users: it starts threads, passes messages on, keeps
 * segments and locks, and ends the process at once when a thread crashes.
 * PostgreSQL counterpart: the postmaster's part in HandleChildCrash.  Next: src/sdk/main.ts in each thread.
 */
import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { MessageChannel, type MessagePort, Worker as Thread } from 'node:worker_threads';
import { describeError } from '../errors.ts';
import { type FromHost, ORPHAN_GRACE, type ToController, type ToHost } from './channel.ts';
import { OS_SIGNALS } from './port.ts';
import { SharedMemoryServer } from './shared-memory-server.ts';

/** In a clone the sources run as they are; in the package they are compiled. */
const isSource = import.meta.url.endsWith('.ts');
const ENTRY = new URL(isSource ? './main.ts' : './main.js', import.meta.url);
/** `--import tsx` serves the main thread only. */
const EXEC_ARGV = isSource
  ? ['--import', `data:text/javascript,import { register } from "${import.meta.resolve('tsx/esm/api')}"; register();`]
  : [];

const memory = new SharedMemoryServer();
const threads = new Map<string, { thread: Thread; memoryPort: MessagePort }>();

process.title = 'bgworker: shared memory';

process.on('message', ({ thread: id, message }: ToHost) => {
  if (message.kind === 'run') void run(id).catch((error: unknown) => notStarted(id, error));
  threads.get(id)?.thread.postMessage(message);
});

// A signal to the process is for every worker in it.
for (const signal of OS_SIGNALS) {
  process.on(signal, () => {
    for (const { thread } of threads.values()) thread.postMessage({ kind: 'signal', signal });
  });
}

process.on('disconnect', () => {
  for (const { memoryPort } of threads.values()) memoryPort.close();
  setTimeout(endAtOnce, ORPHAN_GRACE).unref();
});

/** Runs a thread from its start to its end. */
async function run(id: string): Promise<void> {
  const { port1: memoryPort, port2: workerData } = new MessageChannel();
  const served = memory.serve(memoryPort);
  const thread = new Thread(ENTRY, {
    execArgv: EXEC_ARGV,
    stdout: true,
    stderr: true,
    workerData,
    transferList: [workerData],
  });
  threads.set(id, { thread, memoryPort });
  let outOfMemory = false;
  thread.on('message', (message: ToController) => send({ thread: id, kind: 'said', message }));
  // Its own handlers take every error but these: it has no memory left, or had none of its handlers yet.
  thread.on('error', (error) => {
    outOfMemory = describeError(error).code === 'ERR_WORKER_OUT_OF_MEMORY';
    send({ thread: id, kind: 'said', message: { kind: 'failed', error: describeError(error) } });
  });
  const output = [copy(id, 'stdout', thread.stdout), copy(id, 'stderr', thread.stderr)];
  const exitCode = await new Promise<number>((resolve) => thread.once('exit', resolve));
  threads.delete(id);
  const crash = outOfMemory ? 'ran out of memory' : crashOf(exitCode);
  // After a crash nobody may have the lock of whom crashed: what it guards may be half done.
  if (crash === undefined) served[Symbol.dispose]();
  await Promise.all(output);
  send({ thread: id, kind: 'ended', code: outOfMemory ? null : exitCode, crash }, () => {
    if (crash !== undefined) endAtOnce();
  });
}

/** The operating system has no thread for it: that is its error alone. */
function notStarted(thread: string, error: unknown): void {
  send({ thread, kind: 'said', message: { kind: 'failed', error: describeError(error) } });
  send({ thread, kind: 'ended', code: 1, crash: undefined });
}

/** As in PostgreSQL: 0 and 1 are ends, every other exit code is a crash. */
function crashOf(exitCode: number): string | undefined {
  return exitCode === 0 || exitCode === 1 ? undefined : `exited with exit code ${exitCode}`;
}

/** Passes on what a thread prints; resolves when it has printed all. */
async function copy(thread: string, stream: 'stdout' | 'stderr', from: Readable): Promise<void> {
  from.on('data', (chunk: Uint8Array) => send({ thread, kind: 'output', stream, chunk }));
  await finished(from);
}

function send(message: FromHost, sent?: () => void): void {
  if (process.connected) process.send?.(message, undefined, undefined, sent);
  else sent?.();
}

/** Not process.exit, which would wait for threads that are inside a call of the operating system. */
function endAtOnce(): void {
  process.kill(process.pid, 'SIGKILL');
}
