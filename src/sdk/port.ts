/**
 * The worker's end of the channel to its controller (channel.ts): the IPC channel of a process, or the ports of a thread
 * of the shared-memory host.  What a process has and a thread has not is told apart here and nowhere else.
 */
import { isMainThread, type MessagePort, parentPort, workerData } from 'node:worker_threads';
import type { ToController, ToWorker } from './channel.ts';
import { SharedMemory } from './shared-memory.ts';
import type { WorkerSignal } from './signals.ts';

/** The signals of the operating system that a worker handles; SIGUSR1 belongs to Node.js. */
export const OS_SIGNALS: readonly WorkerSignal[] = ['SIGHUP', 'SIGTERM', 'SIGINT'];

export interface Port {
  /** Only a thread has it. */
  readonly sharedMemory: SharedMemory | undefined;
  onMessage(handler: (message: ToWorker) => void): void;
  /** Calls `handler` for a signal of the operating system. A thread has none: it gets them as messages. */
  onSignal(handler: (signal: WorkerSignal) => void): void;
  /** Calls `handler` when the controller is gone. */
  onClose(handler: () => void): void;
  send(message: ToController): void;
  /** Shows the worker in ps. A thread is not there. */
  setTitle(title: string): void;
  /** Ends when everything that was said and printed has been sent. */
  leave(exitCode: number): void;
}

export function openPort(): Port {
  return isMainThread || !parentPort ? processPort() : threadPort(parentPort, workerData as MessagePort);
}

function processPort(): Port {
  return {
    sharedMemory: undefined,
    onMessage: (handler) => void process.on('message', handler),
    onSignal: (handler) => {
      for (const signal of OS_SIGNALS) process.on(signal, () => handler(signal));
    },
    onClose: (handler) => void process.on('disconnect', handler),
    send: (message) => {
      if (process.connected) process.send?.(message);
    },
    setTitle: (title) => {
      process.title = title;
    },
    leave: (exitCode) => {
      process.exitCode = exitCode;
      if (!process.connected) process.exit(exitCode);
      flush(process.stdout, () =>
        flush(process.stderr, () =>
          process.send?.({ kind: 'leaving' }, undefined, undefined, () => process.exit(exitCode)),
        ),
      );
    },
  };
}

/** Calls back when all that was printed has been read. */
function flush(stream: NodeJS.WriteStream, done: () => void): void {
  if (stream.writable) stream.write('', () => done());
  else done();
}

/** `memory` is closed by the main thread of the host when the controller is gone. */
function threadPort(parent: MessagePort, memory: MessagePort): Port {
  return {
    sharedMemory: new SharedMemory(memory),
    onMessage: (handler) => void parent.on('message', handler),
    onSignal: () => undefined,
    onClose: (handler) => void memory.on('close', handler),
    send: (message) => parent.postMessage(message),
    setTitle: () => undefined,
    // process.exit ends the thread; what it has posted is delivered before its end is.
    leave: (exitCode) => process.exit(exitCode),
  };
}
