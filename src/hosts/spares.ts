/**
 * One process forked ahead, so that a TypeScript worker starts in milliseconds rather than in the time Node.js takes to
 * load; for a while it also has the session that such a worker needs.  Kept only on a node that has started a worker: an
 * idle node has none.  Next: src/sdk/prepared-session.ts.
 */
import type { ChildProcess } from 'node:child_process';
import type { ClientConfig } from 'pg';
import { type ToController, toSend } from '../sdk/channel.ts';
import type { SessionRegistry } from '../sessions/session.ts';
import { forkWorkerProcess } from './fork.ts';
import { registerBackend, type WorkerProcess, workerProcess } from './worker-process.ts';

export interface SparesOptions {
  server: SessionRegistry;
  /** Called when a session that no worker has taken over is closed. */
  onClosed: (pid: number) => void;
  /** Milliseconds that a spare keeps its session. */
  keepFor?: number;
}

/** The next spare is forked when the worker that took the last one has had the processor for itself. */
const FORK_AFTER = 250;
/** As long as the pool keeps a session that is idle. */
const KEEP_FOR = 30_000;

export class Spares implements Disposable {
  readonly #options: SparesOptions;
  #spare: Spare | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: SparesOptions) {
    this.#options = options;
  }

  /** A process that is ready to be told what to run, or as good as.  The next one opens a session of that connection. */
  take(connection?: ClientConfig): WorkerProcess {
    const spare = this.#spare;
    this.#spare = undefined;
    this.#forkLater(connection);
    return spare?.take() ?? workerProcess(forkWorkerProcess());
  }

  /** Ends the spare, and its session. */
  abandon(): void {
    clearTimeout(this.#timer);
    this.#spare?.kill();
    this.#spare = undefined;
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    this.abandon();
  }

  #forkLater(connection: ClientConfig | undefined): void {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#spare = new Spare(this.#options, connection);
    }, FORK_AFTER).unref();
  }
}

class Spare {
  readonly #options: SparesOptions;
  readonly #connection: ClientConfig | undefined;
  readonly #child: ChildProcess = forkWorkerProcess();
  readonly #process: WorkerProcess = workerProcess(this.#child);
  #isTaken = false;

  constructor(options: SparesOptions, connection: ClientConfig | undefined) {
    this.#options = options;
    this.#connection = connection;
    this.#process.onMessage((message) => void this.#receive(message));
    void this.#process.ended.then(() => this.#isTaken || this.#forgetBackends());
    const { keepFor = KEEP_FOR } = options;
    this.#process.send({ kind: 'prepare', connection: connection && toSend(connection), keepFor });
  }

  /** Its process, for a worker. undefined: it has died waiting. */
  take(): WorkerProcess | undefined {
    if (!this.#isAlive()) return undefined;
    this.#isTaken = true;
    return this.#process;
  }

  kill(): void {
    this.#process.kill();
  }

  #isAlive(): boolean {
    return this.#child.connected && this.#child.exitCode === null;
  }

  async #receive(message: ToController): Promise<void> {
    switch (message.kind) {
      case 'session':
        await this.#register(message.pid);
        return;
      case 'session_closed':
        this.#process.backends.delete(message.pid);
        this.#options.onClosed(message.pid);
        return;
      default:
    }
  }

  async #register(pid: number): Promise<void> {
    const { server } = this.#options;
    // One that is refused is closed; that of the worker will be as well, and the worker says why.
    await registerBackend(this.#process, { pid, database: String(this.#connection?.database), server });
    if (!this.#isAlive()) this.#forgetBackends(); // it has ended meanwhile
  }

  #forgetBackends(): void {
    for (const pid of this.#process.backends.keys()) this.#options.onClosed(pid);
    this.#process.backends.clear();
  }
}
