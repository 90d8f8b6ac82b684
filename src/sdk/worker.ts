/**
 * What the function of a worker is given: its name, latch, settings, sessions, signals and log.
 * The correct worker is the short one: mainLoop handles reload, shutdown, the death of the controller and errors.
 */
import type { ClientConfig } from 'pg';
import { BgwError, isForServerLog } from '../errors.ts';
import type { SettingMessage } from './channel.ts';
import { type Cleanup, Cleanups } from './cleanups.ts';
import { describeThrown } from './error-context.ts';
import { type GucEntry, Settings } from './guc.ts';
import { Interrupts } from './interrupts.ts';
import { Latch } from './latch.ts';
import type { Guc } from './library.ts';
import { Listener } from './listener.ts';
import { type MainLoopOptions, runMainLoop } from './main-loop.ts';
import type { SharedMemory } from './shared-memory.ts';
import { Signals, type WorkerSignal } from './signals.ts';
import type { Spi } from './spi.ts';
import { SpiSession } from './spi-session.ts';
import type { LogFields, LogLevel, SetupOptions, WorkerContext } from './worker-context.ts';
import { checkConnection, connectionOf, identityOf, leakedTransaction, logOf, missingFlag } from './worker-context.ts';
import { WorkerSet, type WorkerSetOptions } from './worker-set.ts';

export class Worker {
  /** Name of the worker, as in bgw_stat_activity. */
  readonly name: string;
  /** Set by every signal, by a reload, by bgw_set_latch, and by a notification that it listens to. */
  readonly latch: Latch = new Latch(() => this.#acceptInterrupts());
  readonly #context: WorkerContext;
  readonly #connection: ClientConfig;
  readonly #spi: SpiSession;
  readonly #signals: Signals;
  readonly #settings: Settings;
  readonly #cleanups: Cleanups;
  readonly #interrupts: Interrupts;
  readonly #listener: Listener;
  readonly #shutdown = new AbortController();
  readonly #administratorCommand: string;
  #handle: string;
  #lastQuery: string | null = null;
  #finished: Promise<void> | undefined;

  /** @internal */
  constructor(context: WorkerContext) {
    this.name = context.name;
    this.#administratorCommand = `terminating background worker "${this.name}" due to administrator command`;
    this.#handle = context.handle;
    this.#context = context;
    this.#settings = new Settings(context.settings, (error) => this.#report('WARNING', error));
    this.#cleanups = new Cleanups((error) => this.#report('WARNING', error));
    this.#interrupts = new Interrupts(() => context.send({ kind: 'cancel' }));
    this.#signals = new Signals({
      always: (signal) => this.#process(signal),
      unlessHandled: (signal) => this.#processByDefault(signal),
    });
    context.sharedMemory?.guard(() => this.#interrupts.check());
    this.#connection = connectionOf(context);
    this.#spi = new SpiSession(this.#connection, {
      ...context,
      prepared: context.prepared?.assign(context.connection, identityOf(context)),
      used: (pid) => context.send({ kind: 'session', pid }),
      lost: () => void this.#listener.again(),
      checkForInterrupts: () => this.#interrupts.check(),
      warn: (error) => this.#report('WARNING', error),
      notice: (notice) => isForServerLog(notice) || context.send(logOf(notice)),
    });
    this.#listener = new Listener({
      spi: this.#spi,
      latch: this.latch,
      shutdown: this.#shutdown.signal,
      warn: (error) => this.#report('WARNING', error),
    });
  }

  /** Its handle, as bgw_launch returned it.  Negative while it has none: on a standby, and before the database can be reached. */
  get handle(): string {
    return this.#handle;
  }

  /** Whether SIGTERM has come, or the controller is gone: finish, and return. Asking unblocks signals. */
  get shutdownRequested(): boolean {
    this.#signals.unblock();
    return this.#shutdown.signal.aborted;
  }

  /**
   * Sets what a background worker should set before it begins, in one call, and unblocks signals.  All of it has a default.
   *
   * @example
   * bgw.setup({ activity: 'filling the cache', onExit: () => cache.close(), signals: { SIGUSR1: () => cache.clear() } });
   */
  setup({ applicationName, processTitle, activity, onExit, signals = {} }: SetupOptions): void {
    if (applicationName !== undefined) this.#connection.application_name = applicationName;
    if (processTitle !== undefined) this.#context.setTitle(processTitle);
    if (activity !== undefined) this.reportActivity('active', activity);
    if (onExit) this.onExit(onExit);
    for (const [signal, handler] of Object.entries(signals)) this.on(signal as WorkerSignal, handler);
    this.unblockSignals();
  }

  /**
   * Runs `work` again and again, napping on the latch in between, until SIGTERM or the death of the controller; then it returns.
   * Settings of a reload are taken over between two turns.  An ERROR of `work` is logged, its transaction is rolled back, and the
   * loop goes on after a back-off; the last of `maxErrors` in a row, a lost connection or a FATAL (of the server, or a BgwError of that
   * severity) end the worker with exit code 1, so that its restart rule applies.  SIGTERM cancels the statement that `work` is running, unless there is a handler for it.
   * Errors: 22023 naptime or maxErrors is not in its range.
   */
  async mainLoop(options: MainLoopOptions, work: () => Promise<void> | void): Promise<void> {
    await runMainLoop(options, work, {
      worker: this,
      settings: this.#settings,
      shutdown: this.#shutdown.signal,
      isTermination: (error) => this.#interrupts.isTermination(error),
      isLoss: (error) => this.#spi.isLostBy(error),
      logError: (error) => this.#report('ERROR', error),
    });
    await this.#survive();
  }

  /**
   * Processes what has come: unblocks signals, takes settings of a reload over.  To be called in long computations
   * (CHECK_FOR_INTERRUPTS).  Errors: 57P01 SIGTERM has come and has no handler; also thrown by each statement then.
   */
  checkForInterrupts(): void {
    this.#acceptInterrupts();
    this.#interrupts.check();
  }

  /**
   * Runs `work` in a transaction on a session of the worker's owner; committed when it returns, rolled back when it throws.
   * Inside another `transaction` it is part of that one. Unblocks signals.
   * Errors: 25P01 that one is ending, or was rolled back; 55000 without the flag backend_database_connection, 57P01 SIGTERM has come and has no handler.
   */
  async transaction<Result>(work: (spi: Spi) => Promise<Result>): Promise<Result> {
    checkConnection(this.#context);
    this.#signals.unblock();
    return this.#interrupts.inTransaction(() => this.#spi.transaction(work));
  }

  /**
   * Runs one statement outside of a transaction block, as VACUUM and REINDEX CONCURRENTLY need it. Unblocks signals.
   * Errors: those of the server and of `transaction`, 25001 inside of `transaction`.
   */
  async command(text: string): Promise<void> {
    checkConnection(this.#context);
    this.#signals.unblock();
    await this.#interrupts.inTransaction(() => this.#spi.command(text));
  }

  /**
   * Listens to a channel, on the session of its transactions, which then stays open: a notification sets the latch, after
   * `handler` was called with its payload; another handler for the same channel takes its place.  While a transaction is open none arrives.  A session that is lost is opened again,
   * and the latch set once, since what was sent meanwhile is lost: look.  `disconnect` stops it until the next transaction.
   * Errors: 22023 the name has not 1 to 63 bytes; 55000 without the flag backend_database_connection; those of the server.
   */
  async listen(channel: string, handler?: (payload: string) => void): Promise<void> {
    checkConnection(this.#context);
    await this.#listener.listen(channel, handler);
  }

  /**
   * Segments and locks that it shares with the other workers of the node that have the flag shmem_access.
   * Errors: 55000 without that flag.
   */
  get shmem(): SharedMemory {
    this.#signals.unblock(); // SIGTERM ends the wait for a lock
    if (this.#context.sharedMemory) return this.#context.sharedMemory;
    throw missingFlag(`worker "${this.name}" has no access to shared memory`, 'shmem_access');
  }

  /** Closes the session of `transaction` until the next one: a worker that sleeps is then not in the way of DROP DATABASE. */
  async disconnect(): Promise<void> {
    await this.#spi.close();
  }

  /**
   * A manager for the processes of a worker set: launches, watches and ends children by key. See {@link WorkerSet}.
   * Errors: 55000 without the flag backend_database_connection.
   */
  workerSet(name: string, options: WorkerSetOptions): WorkerSet {
    checkConnection(this.#context);
    return new WorkerSet(name, options, {
      transaction: (work) => this.transaction(work),
      listen: (heard) => this.#spi.listen(name, heard),
      latch: this.latch,
    });
  }

  /** The value of a setting of now, in its base unit. Errors: 42704 there is no such setting. */
  guc<Value>(setting: Guc<Value> | string): Value {
    return this.#settings.value(setting) as Value;
  }

  /** The value of a setting as SHOW prints it, or as its show hook says. Errors: 42704 there is no such setting. */
  show(setting: Guc<unknown> | string): string {
    return this.#settings.show(setting);
  }

  /**
   * Calls `handler` when the signal comes, in place of the default action: SIGTERM ends the worker at its next interrupt check
   * (a statement, `checkForInterrupts`) and cancels the statement in progress; SIGINT cancels that statement.  Not replaced:
   * SIGTERM asks for the shutdown, SIGHUP takes settings over between two turns, and every signal sets the latch.
   */
  on(signal: WorkerSignal, handler: () => void): void {
    this.#signals.on(signal, handler);
  }

  /**
   * Processes the signals that have come so far, and each that comes from now on when it comes.  Until then they are kept, so
   * that a handler misses none.  The first wait, statement, use of shared memory or question for the shutdown does it too: register handlers before.
   */
  unblockSignals(): void {
    this.#signals.unblock();
  }

  /**
   * Calls `cleanup` when the worker ends, by returning, by an error or by SIGTERM, the last one first, before its session is
   * closed (before_shmem_exit).  An error in it is a WARNING, and so is one that takes longer than two seconds: the others run.
   */
  onExit(cleanup: Cleanup): void {
    this.#cleanups.add(cleanup);
  }

  /** Says in bgw_stat_activity what the worker is doing while it holds no session; `query` stays until there is another (pgstat_report_activity). */
  reportActivity(state: 'active' | 'idle', query: string | null = null): void {
    this.#lastQuery = query ?? this.#lastQuery;
    this.#context.send({ kind: 'activity', state, query: this.#lastQuery });
  }

  /** Writes a line of level LOG to bgw_log and the controller's log. */
  log(message: string): void {
    this.ereport('LOG', message);
  }

  /** Writes a line of any level below ERROR. */
  ereport(severity: LogLevel, message: string, { code, detail, hint }: LogFields = {}): void {
    this.#report(severity, { severity, code, message, detail, hint });
  }

  /** @internal The library is loaded. */
  installHooks(gucs: ReadonlyMap<string, GucEntry>): void {
    this.#settings.install(gucs);
  }

  /** @internal A signal has come. */
  deliver(signal: WorkerSignal, { handle, settings }: { handle?: string; settings?: SettingMessage[] } = {}): void {
    if (handle !== undefined) this.#handle = handle;
    if (settings) this.#settings.reload(settings);
    this.#signals.raise(signal);
  }

  /** @internal The controller is gone. */
  orphan(): void {
    this.#requestShutdown(`terminating background worker "${this.name}" because its controller is gone`);
    this.latch.orphan();
    void this.#spi.terminate().catch(() => undefined); // there is nobody left to be told
  }

  /** @internal Runs the cleanups and closes the session, once. `returned`: its function has, and has thrown nothing. */
  finish({ returned = false }: { returned?: boolean } = {}): Promise<void> {
    if (returned && this.#interrupts.isInTransaction) this.#report('WARNING', leakedTransaction(this.name));
    return (this.#finished ??= this.#finish());
  }

  async #finish(): Promise<void> {
    await this.#survive();
    await this.#cleanups.run();
    await this.#spi.close();
  }

  #process(signal: WorkerSignal): void {
    if (signal === 'SIGTERM') this.#requestShutdown(this.#administratorCommand);
    this.latch.set();
  }

  #processByDefault(signal: WorkerSignal): void {
    if (signal === 'SIGINT') this.#interrupts.cancel();
    if (signal === 'SIGTERM' && !this.#finished) this.#interrupts.terminate(this.#administratorCommand);
  }

  /** To finish, the worker goes on in another session: a cancel may be on its way to this one, or a transaction be open in it. */
  async #survive(): Promise<void> {
    if (this.#interrupts.clear()) await this.#spi.close();
  }

  #acceptInterrupts(): void {
    this.#signals.unblock();
    this.#settings.takeOver();
  }

  #requestShutdown(message: string): void {
    this.#shutdown.abort();
    this.#context.sharedMemory?.interrupt(new BgwError('57P01', { message }));
  }

  #report(severity: LogLevel | 'ERROR', error: unknown): void {
    this.#context.send({ kind: 'log', severity, error: { ...describeThrown(error, this.#context.library), severity } });
  }
}
