/**
 * What the function of a worker is given: its name, latch, settings, sessions, signals and log.
 * The correct worker is the short one: mainLoop handles reload, shutdown, the death of the controller and errors.
 */
import type { ClientConfig } from 'pg';
import { BgwError, describeError } from '../errors.ts';
import type { SettingMessage, ToController } from './channel.ts';
import { Latch } from './latch.ts';
import { type Guc, typedValue } from './library.ts';
import type { SharedMemory } from './shared-memory.ts';
import type { Spi } from './spi.ts';
import { SpiSession } from './spi-session.ts';
import { WorkerSet, type WorkerSetOptions } from './worker-set.ts';

/** The signals that a worker gets, from bgw_signal or from the operating system. */
export type WorkerSignal = 'SIGHUP' | 'SIGTERM' | 'SIGINT' | 'SIGUSR1';

/** Levels of `bgw.ereport` below ERROR, which is `throw`. */
export type LogLevel = 'DEBUG' | 'LOG' | 'INFO' | 'NOTICE' | 'WARNING';

/** DETAIL, HINT and SQLSTATE of a log line. */
export interface LogFields {
  code?: string | undefined;
  detail?: string | undefined;
  hint?: string | undefined;
}

export interface MainLoopOptions {
  /** How long to sleep between two runs: milliseconds, or a setting with a unit of time. */
  naptime: number | Guc<number>;
}

export interface WorkerContext {
  name: string;
  handle: string;
  flags: readonly string[];
  settings: readonly SettingMessage[];
  connection: ClientConfig;
  send: (message: ToController) => void;
  /** Registers a backend with the controller, which answers when it may be used. */
  register: (pid: number) => Promise<void>;
  /** With the flag shmem_access. */
  sharedMemory: SharedMemory | undefined;
}

const MILLISECONDS: Record<string, number> = { us: 0.001, ms: 1, s: 1000, min: 60_000, h: 3_600_000, d: 86_400_000 };

export class Worker {
  /** Name of the worker, as in bgw_stat_activity. */
  readonly name: string;
  /** Set by every signal, by a reload and by bgw_set_latch. */
  readonly latch: Latch = new Latch();
  readonly #context: WorkerContext;
  readonly #spi: SpiSession;
  readonly #handlers = new Map<WorkerSignal, (() => void)[]>();
  readonly #cleanups: (() => Promise<void> | void)[] = [];
  #handle: string;
  #settings: Map<string, SettingMessage>;
  #shutdownRequested = false;

  /** @internal */
  constructor(context: WorkerContext) {
    this.name = context.name;
    this.#handle = context.handle;
    this.#context = context;
    this.#settings = byName(context.settings);
    this.#spi = new SpiSession(
      {
        ...context.connection,
        application_name: `bgworker: ${context.name}`,
        // By it bgw_launch knows who launches.
        options: `${context.connection.options ?? ''} -c bgw.handle=${context.handle}`,
      },
      {
        register: context.register,
        closed: (pid) => context.send({ kind: 'session_closed', pid }),
        notice: ({ severity, message, code, detail, hint }) =>
          this.ereport(levelOf(severity), message ?? '', { code: code === '00000' ? undefined : code, detail, hint }),
      },
    );
  }

  /** Its handle, as bgw_launch returned it.  Negative while it has none: on a standby, and before the database can be reached. */
  get handle(): string {
    return this.#handle;
  }

  /** Whether SIGTERM has come: finish, and return. */
  get shutdownRequested(): boolean {
    return this.#shutdownRequested;
  }

  /**
   * Runs `work` again and again, napping on the latch in between, until SIGTERM or the death of the controller.
   * An ERROR of `work` is logged, its transaction is rolled back, and the loop goes on; a lost connection or a FATAL ends the
   * worker with exit code 1, so that its restart rule applies.
   */
  async mainLoop({ naptime }: MainLoopOptions, work: () => Promise<void>): Promise<void> {
    while (!this.#shutdownRequested) {
      try {
        this.reportActivity('active');
        await work();
      } catch (error) {
        if (this.#shutdownRequested || !isRecoverable(error)) throw error;
        this.#context.send({ kind: 'log', severity: 'ERROR', error: describeError(error) });
      }
      this.reportActivity('idle');
      if (
        this.#shutdownRequested ||
        (await this.latch.wait({ timeout: this.#milliseconds(naptime) })) === 'postmaster_death'
      )
        return;
    }
  }

  /**
   * Runs `work` in a transaction on a session of the worker's owner; committed when it returns, rolled back when it throws.
   * Inside another `transaction` it is part of that one. Errors: 55000 without the flag backend_database_connection.
   */
  async transaction<Result>(work: (spi: Spi) => Promise<Result>): Promise<Result> {
    this.#checkConnection();
    return this.#spi.transaction(work);
  }

  /**
   * Runs one statement outside of a transaction block, as VACUUM and REINDEX CONCURRENTLY need it.
   * Errors: those of the server, 25001 inside of `transaction`, 55000 without the flag backend_database_connection.
   */
  async command(text: string): Promise<void> {
    this.#checkConnection();
    await this.#spi.command(text);
  }

  /**
   * Segments and locks that it shares with the other workers of the node that have the flag shmem_access.
   * Errors: 55000 without that flag.
   */
  get shmem(): SharedMemory {
    const { sharedMemory } = this.#context;
    if (sharedMemory) return sharedMemory;
    throw new BgwError('55000', {
      message: `worker "${this.name}" has no access to shared memory`,
      hint: 'Register it with the flag "shmem_access".',
    });
  }

  /**
   * Closes the session of `transaction` until the next one: a worker that sleeps is then not in the way of DROP DATABASE.
   */
  async disconnect(): Promise<void> {
    await this.#spi.close();
  }

  /**
   * A manager for the processes of a worker set: launches, watches and ends children by key. See {@link WorkerSet}.
   * Errors: 55000 without the flag backend_database_connection.
   */
  workerSet(name: string, options: WorkerSetOptions): WorkerSet {
    this.#checkConnection();
    return new WorkerSet(name, options, {
      transaction: (work) => this.transaction(work),
      listen: (heard) => this.#spi.listen(name, heard),
      latch: this.latch,
    });
  }

  /** The value of a setting of now, in its base unit. Errors: 42704 there is no such setting. */
  guc<Value>(setting: Guc<Value> | string): Value {
    const name = typeof setting === 'string' ? setting : setting.name;
    const found = this.#settings.get(name);
    if (!found) throw new BgwError('42704', { message: `unrecognized configuration parameter "${name}"` });
    return typedValue(found.vartype, found.setting) as Value;
  }

  /** Calls `handler` when the signal comes, after the default action: SIGTERM asks for the shutdown, SIGHUP takes settings over; all set the latch. */
  on(signal: WorkerSignal, handler: () => void): void {
    this.#handlers.set(signal, [...(this.#handlers.get(signal) ?? []), handler]);
  }

  /** Calls `cleanup` when the worker ends, however it ends, the last one first (before_shmem_exit). */
  onExit(cleanup: () => Promise<void> | void): void {
    this.#cleanups.unshift(cleanup);
  }

  /** Says in bgw_stat_activity what the worker is doing while it holds no session (pgstat_report_activity). */
  reportActivity(state: 'active' | 'idle', query: string | null = null): void {
    this.#context.send({ kind: 'activity', state, query });
  }

  /** Writes a line of level LOG to bgw_log and the controller's log. */
  log(message: string): void {
    this.ereport('LOG', message);
  }

  /** Writes a line of any level below ERROR. */
  ereport(severity: LogLevel, message: string, { code, detail, hint }: LogFields = {}): void {
    this.#context.send({ kind: 'log', severity, error: { severity, code, message, detail, hint } });
  }

  /** @internal A signal has come. */
  deliver(
    signal: WorkerSignal,
    { handle, settings }: { handle?: string; settings?: readonly SettingMessage[] } = {},
  ): void {
    if (signal === 'SIGTERM')
      this.#requestShutdown(`terminating background worker "${this.name}" due to administrator command`);
    if (handle !== undefined) this.#handle = handle;
    if (settings) this.#settings = byName(settings);
    for (const handler of this.#handlers.get(signal) ?? []) handler();
    this.latch.set();
  }

  /** @internal The controller is gone. */
  orphan(): void {
    this.#requestShutdown(`terminating background worker "${this.name}" because its controller is gone`);
    this.latch.orphan();
  }

  /** @internal Runs the cleanups and closes the session. */
  async finish(): Promise<void> {
    for (const cleanup of this.#cleanups) await cleanup();
    await this.#spi.close();
  }

  #requestShutdown(message: string): void {
    this.#shutdownRequested = true;
    this.#context.sharedMemory?.interrupt(new BgwError('57P01', { message }));
  }

  #checkConnection(): void {
    if (this.#context.flags.includes('backend_database_connection')) return;
    throw new BgwError('55000', {
      message: `worker "${this.name}" has no database connection`,
      hint: 'Register it with the flag "backend_database_connection".',
    });
  }

  #milliseconds(naptime: number | Guc<number>): number {
    if (typeof naptime === 'number') return naptime;
    return this.guc(naptime) * (MILLISECONDS[this.#settings.get(naptime.name)?.unit ?? 'ms'] ?? 1);
  }
}

const LEVELS: readonly string[] = ['DEBUG', 'LOG', 'INFO', 'NOTICE', 'WARNING'] satisfies LogLevel[];

/** The severity of a notice of the server; its debug levels have numbers. */
function levelOf(severity = 'NOTICE'): LogLevel {
  const level = severity.replace(/\d$/, '');
  return LEVELS.includes(level) ? (level as LogLevel) : 'NOTICE';
}

function byName(settings: readonly SettingMessage[]): Map<string, SettingMessage> {
  return new Map(settings.map((setting) => [setting.name, setting]));
}

/** An ERROR of a statement, or of the worker's own code, leaves a session that can go on; a FATAL or a lost connection does not. */
function isRecoverable(error: unknown): boolean {
  const { severity, code } = describeError(error);
  return (
    severity === 'ERROR' &&
    !/^(57P|08|E[A-Z]{4})/.test(code ?? '') &&
    !/Connection terminated|not queryable/.test(describeError(error).message)
  );
}
