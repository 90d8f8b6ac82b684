/**
 * The signals of one worker: kept until it unblocks them, then given to its own handlers, or else to the default ones.
 * PostgreSQL counterpart: pqsignal, BackgroundWorkerUnblockSignals.
 */

/** The signals that a worker gets, from bgw_signal or from the operating system. */
export type WorkerSignal = 'SIGHUP' | 'SIGTERM' | 'SIGINT' | 'SIGUSR1';

/** What every worker does at a signal (`always`), and what it does unless it has handlers of its own (`unlessHandled`). */
export interface SignalActions {
  always: (signal: WorkerSignal) => void;
  unlessHandled: (signal: WorkerSignal) => void;
}

export class Signals {
  readonly #actions: SignalActions;
  readonly #handlers = new Map<WorkerSignal, (() => void)[]>();
  /** What came while signals were blocked, in order; undefined: they are not blocked. */
  #kept: WorkerSignal[] | undefined = [];

  constructor(actions: SignalActions) {
    this.#actions = actions;
  }

  on(signal: WorkerSignal, handler: () => void): void {
    this.#handlers.set(signal, [...(this.#handlers.get(signal) ?? []), handler]);
  }

  raise(signal: WorkerSignal): void {
    if (this.#kept) this.#kept.push(signal);
    else this.#process(signal);
  }

  unblock(): void {
    const kept = this.#kept ?? [];
    this.#kept = undefined;
    for (const signal of kept) this.#process(signal);
  }

  #process(signal: WorkerSignal): void {
    this.#actions.always(signal);
    const handlers = this.#handlers.get(signal);
    if (!handlers) this.#actions.unlessHandled(signal);
    for (const handler of handlers ?? []) handler();
  }
}
