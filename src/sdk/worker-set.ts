/**
 * A manager for keyed children: launches them, watches them, and calls back when one could not be launched, has started,
 * or has ended.  Level-based: a notification only says "look"; what is so stands in bgw.process and bgw_run_history.
 * PostgreSQL counterpart: the management of workers in the logical replication and the autovacuum launcher.
 */
import { Latch } from './latch.ts';
import type { Spi } from './spi.ts';

/** A process of the set. */
export interface Child {
  readonly key: string;
  readonly handle: string;
}

/** How a child ended. */
export interface ChildExit {
  /** done, failed, cancelled, expired or lost, as in bgw_run_history. */
  status: string;
  /** Whether it has run at all. */
  started: boolean;
  /** null: it was killed, or never started. */
  exitCode: number | null;
  sqlstate: string | null;
  message: string | null;
}

/** The callbacks are called by `watch`, one after the other, outside of any transaction; they may launch and end children. */
export interface WorkerSetOptions {
  /** Name of the worker that each child is an instance of. */
  worker: string;
  /** The argument of a child, unless `launch` gives one. Default: the worker's own. */
  arg?: (key: string) => unknown;
  /** The database that a child runs in. Default: that of the worker. */
  database?: (key: string) => string;
  /** What becomes of the children when their manager is finished: terminate (default), or keep. While it restarts they stay. */
  whenParentEnds?: 'keep' | 'terminate';
  /** bgw_launch refused; without this callback `launch` throws the error, which has an SQLSTATE as `code`. */
  onLaunchFailed?: (key: string, error: unknown) => Promise<void> | void;
  /** A child that this manager launched has started. */
  onLaunched?: (child: Child) => Promise<void> | void;
  /** A child of this set that this manager did not launch: of an earlier life of it, or launched by hand. */
  onFound?: (child: Child) => Promise<void> | void;
  /** A child is done, or was ended on request, and does not start again. */
  onExit?: (child: Child, exit: ChildExit) => Promise<void> | void;
  /** A child has failed, was lost or expired, and does not start again. */
  onError?: (child: Child, exit: ChildExit) => Promise<void> | void;
}

/** What a set needs of its worker. */
export interface WorkerSetContext {
  transaction: <Result>(work: (spi: Spi) => Promise<Result>) => Promise<Result>;
  /** Calls back at each notification of the set's channel. */
  listen: (heard: () => void) => Promise<void>;
  latch: Latch;
}

interface KnownChild extends Child {
  /** Whether onLaunched is still to be called. */
  isNew: boolean;
  /** Whether it was sent SIGTERM. */
  isEnding: boolean;
}

interface RegisteredRow {
  key: string;
  handle: string;
  started: boolean;
}

/** How long a wait goes on without a look, when notifications are lost. */
const LOOK_AGAIN = 500;

const REGISTERED = `
  SELECT key, id::text AS handle, status = 'started' OR restarts > 0 AS started FROM bgw.process
  WHERE worker_set = $1 AND owner = bgw.current_owner() OR id = ANY ($2::bigint[]) ORDER BY id`;

const ENDED = `
  SELECT DISTINCT ON (handle) handle::text, status, started_at IS NOT NULL AS started, exit_code AS "exitCode", sqlstate, message FROM public.bgw_run_history
  WHERE handle = ANY ($1::bigint[]) ORDER BY handle, finished_at DESC, run_id DESC`;

const LAUNCH = `
  SELECT public.bgw_launch($1, $2, set => $3, key => $4, database => $5, notify => $3, when_parent_ends => $6)::text AS handle`;

/**
 * The children of one manager, by key.  Call `watch` in the main loop: a notification on the channel that is named as the
 * set wakes the loop, and its nap time bounds the delay when one is lost.  Each exit is called back once in the life of a manager.
 *
 * @example
 * const apply = bgw.workerSet('apply', { worker: 'apply_worker', onError: ({ key }) => apply.launch(key) });
 * await bgw.mainLoop({ naptime: 5000 }, async () => {
 *   await apply.watch();
 *   await apply.ensure(await subscriptions(bgw));
 * });
 */
export class WorkerSet {
  /** The set, as in bgw_stat_activity.worker_set, and the channel of its notifications. */
  readonly name: string;
  readonly #options: WorkerSetOptions;
  readonly #context: WorkerSetContext;
  readonly #children = new Map<string, KnownChild>();
  readonly #rung = new Latch();
  #listens = false;
  #looks = 0;

  /** @internal */
  constructor(name: string, options: WorkerSetOptions, context: WorkerSetContext) {
    this.name = name;
    this.#options = options;
    this.#context = context;
  }

  /** The keys that have a child, as of the last `watch` or `launch`. */
  keys(): string[] {
    return [...this.#children.keys()];
  }

  /** The child of that key, as of the last `watch` or `launch`. */
  get(key: string): Child | undefined {
    return this.#children.get(key);
  }

  /**
   * Launches a child; one that failed to launch is none.  Returns it, or undefined after onLaunchFailed.
   * Errors, without that callback: those of bgw_launch, such as 42710 the set has this key, 42704 no such worker.
   */
  async launch(key: string, arg: unknown = this.#options.arg?.(key)): Promise<Child | undefined> {
    const { worker, database, whenParentEnds = 'terminate', onLaunchFailed } = this.#options;
    const mainArg = arg === undefined ? null : JSON.stringify(arg);
    const values = [worker, mainArg, this.name, key, database?.(key), whenParentEnds];
    try {
      await this.#listen();
      const { rows } = await this.#context.transaction((spi) => spi.execute<{ handle: string }>(LAUNCH, values));
      const child = { key, handle: rows[0]?.handle ?? '', isNew: true, isEnding: false };
      this.#children.set(key, child);
      return child;
    } catch (error) {
      if (!onLaunchFailed) throw error;
      await onLaunchFailed(key, error);
      return undefined;
    }
  }

  /** Launches what is missing of these keys, and terminates the children of all others. */
  async ensure(keys: Iterable<string>): Promise<void> {
    const wanted = new Set(keys);
    for (const { key, isEnding } of this.#children.values())
      if (!wanted.has(key) && !isEnding) await this.terminate(key);
    for (const key of wanted) if (!this.#children.has(key)) await this.launch(key);
  }

  /** Sends a signal, as bgw_signal does. False: there is no child of that key. */
  async signal(key: string, signal: 'SIGHUP' | 'SIGINT' | 'SIGTERM' | 'SIGUSR1'): Promise<boolean> {
    const child = this.#children.get(key);
    if (!child) return false;
    child.isEnding ||= signal === 'SIGTERM';
    const { rows } = await this.#context.transaction((spi) =>
      spi.execute<{ sent: boolean }>('SELECT public.bgw_signal($1::bigint, $2) AS sent', [child.handle, signal]),
    );
    return rows[0]?.sent ?? false;
  }

  /** Terminates a child, as bgw_terminate does; it is gone when onExit is called. False: there is no child of that key. */
  async terminate(key: string): Promise<boolean> {
    return this.signal(key, 'SIGTERM');
  }

  /** Waits until no child of that key is left, at most `timeout` milliseconds; callbacks are called meanwhile. Returns whether it is so. */
  async waitForExit(key: string, { timeout }: { timeout: number }): Promise<boolean> {
    const deadline = performance.now() + timeout;
    const before = this.#children.get(key);
    await this.watch();
    const child = before ?? this.#children.get(key);
    if (!child) return true;
    while (this.#children.get(key) === child) {
      const left = deadline - performance.now();
      if (left <= 0) return false;
      await this.#rung.wait({ timeout: Math.min(left, LOOK_AGAIN) });
      await this.watch();
    }
    return true;
  }

  /** Looks at the children and calls back what happened since the last look. */
  async watch(): Promise<void> {
    await this.#listen();
    const handles = [...this.#children.values()].map(({ handle }) => handle);
    const { registered, exits } = await this.#context.transaction(async (spi) => {
      const { rows } = await spi.execute<RegisteredRow>(REGISTERED, [this.name, handles]);
      const present = new Set(rows.map(({ handle }) => handle));
      const gone = handles.filter((handle) => !present.has(handle));
      return { registered: rows, exits: gone.length > 0 ? await readExits(spi, gone) : new Map<string, ChildExit>() };
    });
    // A callback that looks by itself, as waitForExit does, has seen more than this look.
    const look = ++this.#looks;
    for (const [handle, exit] of exits) if (look === this.#looks) await this.#end(handle, exit);
    for (const row of registered) if (look === this.#looks) await this.#see(row);
  }

  async #end(handle: string, exit: ChildExit): Promise<void> {
    const child = [...this.#children.values()].find((known) => known.handle === handle);
    if (!child) return;
    const { onExit, onError } = this.#options;
    if (exit.started) await this.#announce(child);
    this.#children.delete(child.key);
    await (exit.status === 'done' || exit.status === 'cancelled' ? onExit : onError)?.(child, exit);
  }

  async #see({ key, handle, started }: RegisteredRow): Promise<void> {
    const known = this.#children.get(key);
    if (known?.handle === handle) {
      if (started) await this.#announce(known);
      return;
    }
    // One of the same key is being told of at the next look: an exit is called back before its successor is found.
    if (known) return;
    const child = { key, handle, isNew: false, isEnding: false };
    this.#children.set(key, child);
    await this.#options.onFound?.(child);
  }

  async #announce(child: KnownChild): Promise<void> {
    if (!child.isNew) return;
    child.isNew = false;
    await this.#options.onLaunched?.(child);
  }

  async #listen(): Promise<void> {
    if (this.#listens) return;
    await this.#context.listen(() => {
      this.#rung.set();
      this.#context.latch.set();
    });
    this.#listens = true;
  }
}

/** How processes that are registered no more have ended. */
async function readExits(spi: Spi, handles: readonly string[]): Promise<Map<string, ChildExit>> {
  const { rows } = await spi.execute<ChildExit & { handle: string }>(ENDED, [handles]);
  const known = new Map(rows.map(({ handle, ...exit }) => [handle, exit]));
  return new Map(handles.map((handle) => [handle, known.get(handle) ?? UNTOLD]));
}

/** The history is bounded, and a launch may have been rolled back. */
const UNTOLD: ChildExit = {
  status: 'lost',
  started: false,
  exitCode: null,
  sqlstate: null,
  message: 'there is no record of how it ended',
};
