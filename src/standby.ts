/**
 * What a controller does while its server is a standby.  Nothing can be written there, so this plays the part of bgw.report
 * and bgw.take_orders in memory: it reads the replicated definitions, and answers with orders of the same shape.
 * What it runs has no process: the handle is minus the id of the definition.  An advisory lock per worker keeps two
 * controllers of one standby apart, and shows in bgw_stat_standby what runs (docs/decisions/0009).
 * Called by src/node.ts.  Next: sql/control/standby_workers.sql.
 */
import type { Catalog } from './catalog.ts';
import type { Clock } from './clock.ts';
import { BgwError, describeError } from './errors.ts';
import type { Observe } from './observation.ts';
import { type Answered, type Event, localRunId, type Order, type StandbyWorker, type StartOrder } from './orders.ts';

export interface StandbyOptions {
  catalog: Catalog;
  clock: Clock;
  observe: Observe;
  /** Names of the libraries that are loaded here. */
  libraries: string[];
  /** What runs here already: workers of start time postmaster_start. */
  running: readonly StartOrder[];
}

/** One worker here. */
interface Entry {
  worker: StandbyWorker;
  /** Definition and settings as they were last taken over, as text. */
  known: string;
  /** undefined: it does not run. */
  runId: string | undefined;
  /** SIGTERM was sent: it does not belong here any more. */
  ending: boolean;
  /** By the monotonic clock; Infinity: it is done, or may not run here. */
  startsAt: number;
  startedAt: number;
  /** In a row. */
  failures: number;
  /** That another controller runs it is said once. */
  saidTaken: boolean;
}

/** A changed definition or setting, or a promotion, is seen within this time. */
const POLL_EVERY = 2000;

export class Standby {
  readonly #options: StandbyOptions;
  readonly #entries = new Map<string, Entry>();

  constructor(options: StandbyOptions) {
    this.#options = options;
  }

  /** Takes in what ended and answers with orders; `room` as for bgw.take_orders. undefined: the server was promoted. */
  async exchange(events: readonly Event[], room: number): Promise<Answered | undefined> {
    const { catalog, clock, libraries } = this.#options;
    for (const event of events) {
      if (event.kind === 'exited') await this.#settle(event);
      else if (event.kind === 'returned') await this.#end(event.run_id);
    }
    const workers = await catalog.standbyWorkers(libraries);
    if (!workers) return undefined;
    const orders = [...this.#forget(workers), ...(await this.#update(workers))];
    if (room >= 0) orders.push(...(await this.#start(room)));
    const waits = [...this.#entries.values()].map(({ startsAt, runId }) =>
      runId === undefined ? startsAt - clock.monotonic() : POLL_EVERY,
    );
    // What is due and waits, for a slot or for another controller, is looked at with the rest.
    return { orders, wakeMs: Math.min(POLL_EVERY, ...waits.filter((wait) => wait > 0)), firstTurn: null };
  }

  async #settle({ run_id, exit_code }: Extract<Event, { kind: 'exited' }>): Promise<void> {
    const { catalog, clock } = this.#options;
    const entry = await this.#end(run_id);
    if (!entry) return;
    const { worker, startedAt, failures } = entry;
    const ranMs = clock.monotonic() - startedAt;
    const restart = await catalog.standbyRestart(worker.id, { exitCode: exit_code, ranMs, failures });
    entry.failures = restart.failures;
    entry.startsAt = restart.waitMs === null ? Infinity : clock.monotonic() + restart.waitMs;
  }

  /** It runs here no longer, or has not begun to. */
  async #end(run_id: string): Promise<Entry | undefined> {
    const entry = [...this.#entries.values()].find(({ runId }) => runId === run_id);
    if (!entry) return undefined;
    await this.#options.catalog.unlockWorker(entry.worker.id);
    entry.runId = undefined;
    if (entry.ending) this.#entries.delete(entry.worker.id);
    return entry;
  }

  /** Ends what does not belong here any more. */
  #forget(workers: readonly StandbyWorker[]): Order[] {
    const orders: Order[] = [];
    for (const [id, entry] of this.#entries) {
      if (workers.some((worker) => worker.id === id) || entry.ending) continue;
      if (entry.runId === undefined) this.#entries.delete(id);
      else orders.push(signal(entry, 'SIGTERM'));
      entry.ending = true;
    }
    return orders;
  }

  /** Takes changed definitions and settings over: as a reload by what runs, at once by what does not. */
  async #update(workers: readonly StandbyWorker[]): Promise<Order[]> {
    const orders: Order[] = [];
    for (const worker of workers) {
      const known = JSON.stringify(worker);
      const entry = this.#entries.get(worker.id) ?? (await this.#add(worker));
      if (entry.ending || entry.known === known) continue;
      Object.assign(entry, { worker, known });
      if (entry.runId === undefined) entry.startsAt = 0;
      else orders.push(signal(entry, 'SIGHUP'));
    }
    return orders;
  }

  async #add(worker: StandbyWorker): Promise<Entry> {
    const { catalog, clock, running } = this.#options;
    const runId = running.find(({ name }) => name === worker.name)?.run_id;
    if (runId !== undefined) await catalog.lockWorker(worker.id);
    const entry = {
      worker,
      known: '',
      runId,
      ending: false,
      startsAt: 0,
      startedAt: clock.monotonic(),
      failures: 0,
      saidTaken: false,
    };
    this.#entries.set(worker.id, entry);
    return entry;
  }

  async #start(room: number): Promise<Order[]> {
    const orders: Order[] = [];
    let left = room;
    for (const entry of this.#entries.values()) {
      const { worker, startsAt, runId } = entry;
      const takesSlot = worker.naptime === null;
      if (runId !== undefined || startsAt > this.#options.clock.monotonic()) continue;
      if (!worker.startable || (takesSlot && left === 0) || !(await this.#mayRun(entry))) continue;
      if (takesSlot) left -= 1;
      entry.runId = localRunId();
      entry.startedAt = this.#options.clock.monotonic();
      const { id, startable: _startable, ...definition } = worker;
      orders.push({ kind: 'start', handle: handleOf(id), run_id: entry.runId, ...definition });
    }
    return orders;
  }

  async #mayRun(entry: Entry): Promise<boolean> {
    const { catalog, observe } = this.#options;
    const { id, name, mode } = entry.worker;
    if (mode === 'atomic') {
      entry.startsAt = Infinity;
      observe({ kind: 'worker_refused', handle: handleOf(id), name, error: describeError(cannotRunAtomic(name)) });
      return false;
    }
    const locked = await catalog.lockWorker(id);
    if (!locked && !entry.saidTaken) {
      observe({ kind: 'worker_refused', handle: handleOf(id), name, error: describeError(runsElsewhere(name)) });
    }
    entry.saidTaken = !locked;
    return locked;
  }
}

function handleOf(workerId: string): string {
  return `-${workerId}`;
}

function signal({ worker, runId = '' }: Entry, name: 'SIGHUP' | 'SIGTERM'): Order {
  const { id, naptime, command, settings } = worker;
  return { kind: 'signal', signal: name, handle: handleOf(id), run_id: runId, naptime, command, settings };
}

function cannotRunAtomic(name: string): BgwError {
  return new BgwError('25006', {
    message: `worker "${name}" cannot run on a standby`,
    detail: 'Mode "atomic" commits a completion with the effects of the command, and nothing can be written here.',
    hint: 'Register it with mode "session", or with the start time "recovery_finished".',
  });
}

function runsElsewhere(name: string): BgwError {
  return new BgwError('55P03', {
    message: `worker "${name}" is run by another controller of this standby`,
    detail: 'Its advisory lock is held by another session.',
    hint: 'The view bgw_stat_standby names that session.  The worker starts here when it is gone.',
  });
}
