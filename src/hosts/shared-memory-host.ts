/**
 * The shared-memory host of this node: one process, forked when the first worker with the flag shmem_access starts, whose
 * threads are these workers.  It stays while the controller runs, and so do its segments.  When a thread crashes, is
 * killed, or the process dies, the process ends and every worker in it; sql/control/settle_exits.sql starts them again at
 * once, in a new process with new segments.  docs/decisions/0007-shared-memory-host.md says why.
 * PostgreSQL counterpart: HandleChildCrash, PostmasterStateMachine.  Next: src/sdk/shared-memory-main.ts in the process.
 */
import { PassThrough } from 'node:stream';
import { describeError } from '../errors.ts';
import type { FromHost, ToController, ToHost, ToWorker } from '../sdk/channel.ts';
import type { Backend } from '../sessions/session.ts';
import { forkSharedMemoryHost } from './fork.ts';
import { type End, exitOf, type WorkerProcess } from './worker-process.ts';

export class SharedMemoryHost implements Disposable {
  #process: HostProcess | undefined;

  /** A thread for one attempt of a worker; its first message starts it. */
  createThread(runId: string, name: string): WorkerProcess {
    if (!this.#process || this.#process.isEnding) this.#process = new HostProcess();
    return this.#process.createThread(runId, name);
  }

  [Symbol.dispose](): void {
    this.#process?.kill();
  }
}

/** One life of the host, from the fork to its end. */
class HostProcess {
  readonly #child = forkSharedMemoryHost();
  readonly #threads = new Map<string, Thread>();
  #crash: { thread: Thread; end: End & { how: string } } | undefined;
  #isEnding = false;

  constructor() {
    this.#child.on('message', (message: FromHost) => this.#receive(message));
    void this.#watch();
  }

  get isEnding(): boolean {
    return this.#isEnding;
  }

  createThread(runId: string, name: string): Thread {
    const thread = new Thread({
      name,
      osPid: this.#child.pid,
      send: (message) => this.#send({ thread: runId, message }),
      // A thread may be inside a call that nothing but the end of the process ends, and its death resets the memory anyway.
      kill: () => this.#crashed(thread, { code: null, how: 'was killed' }),
    });
    this.#threads.set(runId, thread);
    return thread;
  }

  kill(): void {
    this.#isEnding = true;
    this.#child.kill('SIGKILL');
  }

  #receive(message: FromHost): void {
    const thread = this.#threads.get(message.thread);
    if (!thread) return;
    switch (message.kind) {
      case 'said':
        thread.emit(message.message);
        return;
      case 'output':
        thread[message.stream].write(message.chunk);
        return;
      case 'ended':
        if (message.crash === undefined) {
          this.#threads.delete(message.thread);
          thread.end({ code: message.code });
        } else {
          this.#crashed(thread, { code: message.code, how: message.crash });
        }
        return;
      default:
        message satisfies never;
    }
  }

  /** The first crash is the cause of all that follows. */
  #crashed(thread: Thread, end: End & { how: string }): void {
    this.#crash ??= { thread, end };
    this.kill();
  }

  /** Waits for the end of the process, and ends the threads that it took along. */
  async #watch(): Promise<void> {
    const endOf = await this.#exit();
    this.#isEnding = true;
    for (const thread of this.#threads.values()) thread.end(endOf(thread));
    this.#threads.clear();
  }

  /** How the process ended, for each of its threads. */
  async #exit(): Promise<(thread: Thread) => End> {
    try {
      const { code, signal } = await exitOf(this.#child);
      return (thread) =>
        this.#endOf(thread, signal ? `was terminated by signal ${signal}` : `exited with exit code ${code}`);
    } catch (error) {
      const how = `could not be started: ${describeError(error).message}`;
      return () => ({ code: 1, how });
    }
  }

  #endOf(thread: Thread, how: string): End {
    if (this.#crash?.thread === thread) return { ...this.#crash.end, crashReset: true };
    if (!this.#crash) {
      return { code: null, how: `was terminated because the shared-memory host ${how}`, crashReset: true };
    }
    return {
      code: null,
      how: 'was terminated because of the crash of another shared-memory worker',
      sqlstate: '57P02',
      detail: `Background worker "${this.#crash.thread.name}" ${this.#crash.end.how}.`,
      crashReset: true,
    };
  }

  #send(message: ToHost): void {
    // An error of the channel is the end of the process, which is seen anyway.
    if (this.#child.connected) this.#child.send(message, () => undefined);
  }
}

class Thread implements WorkerProcess {
  readonly backends: Map<number, Backend> = new Map();
  readonly name: string;
  readonly osPid: number | undefined;
  readonly send: (message: ToWorker) => void;
  readonly kill: () => void;
  readonly stdout: PassThrough = new PassThrough();
  readonly stderr: PassThrough = new PassThrough();
  readonly ended: Promise<End>;
  #resolve!: (end: End) => void;
  #handler: (message: ToController) => void = () => undefined;

  constructor({ name, osPid, send, kill }: Pick<Thread, 'name' | 'osPid' | 'send' | 'kill'>) {
    this.name = name;
    this.osPid = osPid;
    this.send = send;
    this.kill = kill;
    this.ended = new Promise((resolve) => (this.#resolve = resolve));
  }

  onMessage(handler: (message: ToController) => void): void {
    this.#handler = handler;
  }

  emit(message: ToController): void {
    this.#handler(message);
  }

  end(end: End): void {
    this.stdout.end();
    this.stderr.end();
    this.#resolve(end);
  }
}
