/**
 * A TypeScript worker: its function in an operating system process of its own, titled "bgworker: NAME" and isolated in a
 * crash; or, with the flag shmem_access, in a thread of the shared-memory host (worker-process.ts).  PostgreSQL counterpart: StartBackgroundWorker, CleanupBackgroundWorker.  Keeps I8, I11.
 * Next: src/sdk/main.ts in the process or thread.
 */
import type { Readable } from 'node:stream';
import type { ClientConfig } from 'pg';
import { describeError, type ErrorDescription } from '../errors.ts';
import type { Severity } from '../observation.ts';
import type { Exit, SignalOrder, StartOrder } from '../orders.ts';
import { endBackend } from '../sessions/cancel.ts';
import type { Backend } from '../sessions/session.ts';
import { type ToController, toSend } from '../sdk/channel.ts';
import { administratorCommand, type Host, type HostContext } from './host.ts';
import { readOutput } from './output.ts';
import { type End, registerBackend, type WorkerProcess } from './worker-process.ts';

export interface ProcessHostOptions {
  /** URL of the library's module. */
  library: string;
  /** Where it runs. */
  process: WorkerProcess;
  /** Connection of the owner's login to the database of the worker; empty for one that may have no sessions. */
  connection: ClientConfig;
}

export class ProcessHost implements Host {
  readonly order: StartOrder;
  readonly ended: Promise<Exit>;
  readonly #options: ProcessHostOptions;
  readonly #context: HostContext;
  readonly #process: WorkerProcess;
  /** Of the session that the worker uses. */
  #session: number | undefined;
  #error: ErrorDescription | undefined;
  #stopped = false;
  #killTimer: NodeJS.Timeout | undefined;
  #startTimer: NodeJS.Timeout | undefined;

  constructor(order: StartOrder, options: ProcessHostOptions, context: HostContext) {
    this.order = order;
    this.#options = options;
    this.#context = context;
    this.#process = options.process;
    this.ended = this.#main();
  }

  signal({ signal, settings }: Partial<SignalOrder> & Pick<SignalOrder, 'signal'>): void {
    if (signal === 'SIGTERM' && !this.#stopped) {
      this.#stopped = true;
      clearTimeout(this.#startTimer);
      const reason = 'did not end within its grace after SIGTERM and was killed';
      this.#killTimer = setTimeout(() => this.#kill(reason), this.#context.grace);
    }
    this.#process.send({ kind: 'signal', signal, handle: this.order.handle, ...(settings ? { settings } : {}) });
  }

  async #main(): Promise<Exit> {
    this.#listen();
    this.#startTimer = setTimeout(() => this.#notStarted(), this.#context.startWithin);
    const { library, connection } = this.#options;
    const { handle, name, main_arg: mainArg, function_name: functionName, flags, settings } = this.order;
    this.#process.send({
      kind: 'run',
      library,
      connection: toSend(connection),
      name,
      handle,
      mainArg,
      flags,
      settings,
      functionName: functionName ?? '',
    });
    const end = await this.#process.ended;
    clearTimeout(this.#killTimer);
    clearTimeout(this.#startTimer);
    await this.#endBackends();
    return { exit_code: end.code, session_pid: this.#session, crash_reset: end.crashReset, error: this.#errorOf(end) };
  }

  /** A killed process leaves its statement running on the server. */
  async #endBackends(): Promise<void> {
    await Promise.all(
      [...this.#process.backends.values()].map((backend) =>
        this.#endBackend(backend).catch((error: unknown) => {
          const during = `ending backend ${backend.pid}`;
          this.#context.observe({ kind: 'unexpected_error', during, error: describeError(error) });
        }),
      ),
    );
  }

  async #endBackend(backend: Backend): Promise<void> {
    const { server, clock, events } = this.#context;
    await endBackend(server, backend, clock);
    events.push({ kind: 'session_closed', pid: backend.pid });
  }

  #listen(): void {
    this.#process.onMessage(
      (message) => void this.#receive(message).catch((error: unknown) => this.#say('WARNING', describeError(error))),
    );
    this.#copyLines(this.#process.stdout, 'LOG');
    this.#copyLines(this.#process.stderr, 'WARNING');
  }

  async #receive(message: ToController): Promise<void> {
    const { events, observe, server } = this.#context;
    const { handle, run_id, name, database } = this.order;
    const { backends } = this.#process;
    switch (message.kind) {
      case 'started':
        clearTimeout(this.#startTimer);
        events.push({ kind: 'started', handle, run_id, os_pid: this.#process.osPid });
        observe({ kind: 'worker_started', handle, name, osPid: this.#process.osPid });
        return;
      case 'session': {
        const backend = await registerBackend(this.#process, { pid: message.pid, database, server });
        if (!backend) return;
        this.#session = backend.pid;
        events.push({ kind: 'session', handle, run_id, pid: backend.pid, backend_start: backend.backendStart });
        return;
      }
      case 'session_closed': {
        if (message.pid === this.#session) {
          this.#session = undefined;
          events.push({ kind: 'session', handle, run_id, pid: null, backend_start: null });
        }
        const backend = backends.get(message.pid);
        if (message.lost && backend) await endBackend(server, backend, this.#context.clock);
        backends.delete(message.pid);
        events.push({ kind: 'session_closed', pid: message.pid });
        return;
      }
      case 'cancel':
        await Promise.all([...backends.values()].map((backend) => server.cancelBackend(backend)));
        return;
      case 'activity':
        events.push({ kind: 'activity', handle, run_id, state: message.state, query: message.query });
        return;
      case 'log':
        this.#say(message.severity, message.error);
        return;
      case 'failed':
        this.#error ??= message.error; // what follows is its consequence
        return;
      default:
    }
  }

  /** Its library hangs while it is loaded, or in its init: the worker has no status of its own to be asked for. */
  #notStarted(): void {
    this.#error = {
      severity: 'ERROR',
      code: 'WK113',
      message: `background worker "${this.order.name}" did not start within ${this.#context.startWithin / 1000} s`,
      detail: `Library "${this.order.library_name}" was not loaded by then.`,
    };
    this.#kill('did not start in time and was killed');
  }

  #kill(reason: string): void {
    const { handle, name } = this.order;
    this.#context.observe({ kind: 'worker_killed', handle, name, reason });
    this.#process.kill();
  }

  #errorOf({ code, how = `exited with exit code ${code}`, sqlstate, detail }: End): ErrorDescription | undefined {
    if (code === 0 && !this.#stopped) return undefined;
    if (this.#stopped) return administratorCommand(this.order.name);
    if (this.#error) return this.#error;
    return { severity: 'ERROR', code: sqlstate, message: `background worker "${this.order.name}" ${how}`, detail };
  }

  #copyLines(stream: Readable | null, severity: Severity): void {
    if (!stream) return;
    void readOutput(stream, {
      clock: this.#context.clock,
      line: (message) => this.#say(severity, { severity, message }),
      leftOut: (bytes) =>
        this.#say('WARNING', {
          severity: 'WARNING',
          message: `${bytes} bytes of what background worker "${this.order.name}" printed were left out`,
          detail: 'It printed more lines in a second than the log takes.',
        }),
    }).catch((error: unknown) => this.#say('WARNING', describeError(error)));
  }

  #say(severity: string, error: ErrorDescription): void {
    const { handle, name } = this.order;
    this.#context.observe({ kind: 'worker_said', severity: severity as Severity, handle, name, error });
  }
}
