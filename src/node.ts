/**
 * This node, as the database knows it: its control session, epoch and lease.  Joins, comes back after an outage, joins
 * anew after it was taken over, leaves.  While the server is a standby nothing knows of it, and src/standby.ts gives the
 * orders.  Called by src/controller.ts.  Keeps I6, I12, I17.
 */
import type { ClientConfig } from 'pg';
import { Catalog, type Demand, type NodeToken } from './catalog.ts';
import { backOff, type Clock } from './clock.ts';
import { BgwError, describeError, type ErrorDescription } from './errors.ts';
import { Lease } from './lease.ts';
import type { LoadedLibrary } from './libraries.ts';
import type { Observe } from './observation.ts';
import type { Answered, Claim, Event, StartOrder } from './orders.ts';
import type { Signaller } from './sessions/cancel.ts';
import type { Backend } from './sessions/session.ts';
import { Standby } from './standby.ts';

/** What a node is told by whoever starts it. */
export interface NodeSettings {
  connection: ClientConfig;
  nodeName: string;
  maxWorkerProcesses: number;
  clock: Clock;
  observe: Observe;
}

/** Why a node ends every worker: others have taken over or will, or the orders of a standby have no meaning any more. */
export type Abandonment = 'fenced' | 'lease_ended' | 'promoted' | 'demoted' | 'standby_lost';

export interface NodeOptions extends NodeSettings {
  libraries: () => readonly LoadedLibrary[];
  /** What was started before the database could be reached. */
  early: () => readonly StartOrder[];
  /** The database has claims for these of them; the others are not this node's to run. */
  adopted: (claims: readonly Claim[]) => void;
  /** Run ids of what is running here. */
  runIds: () => string[];
  /** Run ids of what has ended here and has not been reported: it must not be run again. */
  endedRunIds: () => string[];
  /** Ends every run but these: the database knows of no other. */
  keepRuns: (runIds: readonly string[]) => void;
  /** Ends every worker here and now, without the database. */
  abandonWorkers: (why: Abandonment) => Promise<void>;
}

/** A control session that comes back more often than this is not worth another line. */
const STABLE_AFTER = 10_000;
/** What waits for the control session to come back looks this often. */
const RETRY_EVERY = 100;

export class Node implements Signaller {
  readonly #options: NodeOptions;
  #catalog: Catalog | undefined;
  #token: NodeToken | undefined;
  #lease: Lease | undefined;
  #leaseTimer: NodeJS.Timeout | undefined;
  /** While it ends its workers because the lease is over. */
  #ending: Promise<void> | undefined;
  /** While the server is a standby. */
  #standby: Standby | undefined;
  /** The outage that is going on: its attempts to come back, and what was said of it. */
  #outage: { attempts: number; observed: string | undefined } | undefined;
  #resumedAt = -Infinity;
  #abandoning = false;
  #closed = false;

  constructor(options: NodeOptions) {
    this.#options = options;
  }

  get serverVersion(): number {
    return this.#connected().serverVersion;
  }

  get onStandby(): boolean {
    return this.#standby !== undefined;
  }

  /** Opens the control session and joins, resumes, or serves a standby. Errors: those of Catalog.connect, and WK001. */
  async connect(): Promise<void> {
    const catalog = await Catalog.connect(this.#options.connection, this.#options.clock);
    try {
      if (catalog.inRecovery) await this.#standBy(catalog);
      else await this.#joinOrResume(catalog);
    } catch (error) {
      await catalog.close();
      throw error;
    }
    this.#catalog = catalog;
  }

  async exchange(events: readonly Event[], demand: Demand): Promise<Answered> {
    const startedAt = this.#options.clock.monotonic();
    const answer = this.#standby
      ? await this.#standby.exchange(events, demand.room)
      : await this.#connected().exchange(this.#joined(), events, demand);
    this.#lease?.renew(startedAt);
    this.#watchLease();
    this.#endOutage();
    return answer ?? this.#joinPromoted();
  }

  /** Launches do not ring this node for as many milliseconds as this returns; 0: no longer than before. */
  async stayAwake(): Promise<number> {
    return this.#standby ? 0 : this.#connected().stayAwake(this.#joined());
  }

  /** After an exchange has failed: comes back. What went wrong is observed once per outage. Returns early when aborted. */
  async recover(reason: unknown, signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    await this.#catalog?.close();
    await this.#endStandby('standby_lost');
    const outage = (this.#outage ??= { attempts: 0, observed: undefined });
    await this.#observeTrouble(describeError(reason), outage);
    for (; !signal.aborted; outage.attempts += 1) {
      // The first attempt is made at once: most losses are of a connection, not of a server.
      if (outage.attempts > 0) await clock.sleep(backOff(outage.attempts, clock), signal);
      await this.#guardLease();
      try {
        await this.connect();
        outage.attempts += 1;
        return;
      } catch (error) {
        await this.#observeTrouble(describeError(error), outage);
      }
    }
  }

  /** Gives up the row of this node. Every worker has ended. */
  async leave(): Promise<void> {
    if (!this.#standby) await this.#connected().leave(this.#joined());
    this.#options.observe({ kind: 'node_left', node: this.#options.nodeName });
  }

  /** Ends the control session; what waits for it to come back fails. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#leaseTimer);
    await this.#catalog?.close();
  }

  registerSession(pid: number, database: string): Promise<string> {
    return this.#onceConnected((catalog) =>
      this.#standby ? catalog.backendStart(pid) : catalog.registerSession(this.#joined(), pid, database),
    );
  }

  cancelBackend(backend: Backend): Promise<boolean> {
    return this.#onceConnected((catalog) => catalog.cancelBackend(backend));
  }

  terminateBackend(backend: Backend): Promise<boolean> {
    return this.#onceConnected((catalog) => catalog.terminateBackend(backend));
  }

  async #joinOrResume(catalog: Catalog): Promise<void> {
    if (this.#token) {
      const { runIds, endedRunIds, keepRuns } = this.#options;
      keepRuns(await catalog.resume(this.#token, [...runIds(), ...endedRunIds()]));
    } else await this.#join(catalog);
    // kill_idle and its like leave the sessions of a node alone; a fencing ends them.
    await catalog.registerSession(this.#joined(), await catalog.ownPid(), String(this.#options.connection.database));
  }

  async #join(catalog: Catalog): Promise<void> {
    const { nodeName, maxWorkerProcesses, clock, observe } = this.#options;
    const libraries = this.#options.libraries();
    const startedAt = clock.monotonic();
    const names = libraries.map((library) => library.name);
    const { leaseMs, ...token } = await catalog.join({ name: nodeName, libraries: names, maxWorkerProcesses });
    this.#token = token;
    this.#lease = new Lease(leaseMs, clock);
    this.#lease.renew(startedAt);
    for (const library of libraries) {
      await catalog.defineLibrary(library).catch((error: unknown) => {
        observe({ kind: 'library_failed', library: library.name, error: describeError(error) });
      });
    }
    observe({ kind: 'node_joined', node: nodeName, ...token });
    const early = this.#options.early().map((order) => order.name);
    if (early.length > 0) this.#options.adopted(await catalog.adopt(token, early));
  }

  /** The server is a standby: one from the start, or one that was a primary and came back as a standby. */
  async #standBy(catalog: Catalog): Promise<void> {
    const { nodeName, clock, observe, libraries, early, runIds } = this.#options;
    if (this.#token) await this.#abandonWorkers('demoted');
    this.#token = undefined;
    this.#lease = undefined;
    const names = libraries().map((library) => library.name);
    const running = early().filter((order) => runIds().includes(order.run_id));
    this.#standby = new Standby({ catalog, clock, observe, libraries: names, running });
    observe({ kind: 'standby_entered', node: nodeName });
  }

  /** Joins the server that was a standby. What ran there has no claim: it is ended, and started again by the normal path. */
  async #joinPromoted(): Promise<Answered> {
    this.#options.observe({ kind: 'standby_promoted', node: this.#options.nodeName });
    await this.#endStandby('promoted');
    await this.#catalog?.close();
    await this.connect();
    return { orders: [], wakeMs: 0, firstTurn: null };
  }

  async #endStandby(why: 'promoted' | 'standby_lost'): Promise<void> {
    if (!this.#standby) return;
    await this.#abandonWorkers(why);
    this.#standby = undefined;
  }

  async #observeTrouble(error: ErrorDescription, outage: { observed: string | undefined }): Promise<void> {
    if (error.code === 'WK001') {
      this.#options.observe({ kind: 'node_fenced', node: this.#options.nodeName, error });
      await this.#abandonWorkers('fenced');
      this.#token = undefined;
    } else if (outage.observed === undefined || (isOfServer(error) && outage.observed !== error.code)) {
      outage.observed = error.code ?? 'no connection';
      this.#options.observe({ kind: 'connection_lost', error });
    }
  }

  /** An outage is over when calls are answered again; a connection that keeps dying is one outage, not many. */
  #endOutage(): void {
    const { clock, nodeName, observe } = this.#options;
    if (!this.#outage || clock.monotonic() - this.#resumedAt < STABLE_AFTER) return;
    observe({ kind: 'node_resumed', node: nodeName, attempts: this.#outage.attempts });
    this.#outage = undefined;
    this.#resumedAt = clock.monotonic();
  }

  /** A node that cannot reach the database stops its workers before others take them over (HARDENING B1). */
  async #guardLease(): Promise<void> {
    if (!this.#lease || this.#lease.held() || this.#options.runIds().length === 0) return;
    this.#ending ??= this.#endWithLease().finally(() => (this.#ending = undefined));
    await this.#ending;
  }

  async #endWithLease(): Promise<void> {
    this.#options.observe({ kind: 'lease_ended', node: this.#options.nodeName });
    await this.#abandonWorkers('lease_ended');
  }

  /** However long the call in flight waits for its answer. */
  #watchLease(): void {
    if (this.#closed || !this.#lease) return;
    this.#leaseTimer ??= setTimeout(() => {
      this.#leaseTimer = undefined;
      if (this.#lease?.held()) this.#watchLease();
      else void this.#guardLease();
    }, this.#lease.remaining()).unref();
  }

  async #abandonWorkers(why: Abandonment): Promise<void> {
    this.#abandoning = true;
    await this.#options.abandonWorkers(why);
    this.#abandoning = false;
  }

  /** Asks the server; when the control session is away, as soon as it has come back. */
  async #onceConnected<Result>(work: (catalog: Catalog) => Promise<Result>): Promise<Result> {
    for (;;) {
      try {
        return await work(this.#connected());
      } catch (error) {
        if (this.#closed || this.#abandoning || isOfServer(describeError(error))) throw error;
        await this.#options.clock.sleep(RETRY_EVERY);
      }
    }
  }

  #connected(): Catalog {
    if (!this.#catalog) throw new BgwError('08003', { message: 'the control session is not connected' });
    return this.#catalog;
  }

  #joined(): NodeToken {
    if (!this.#token) throw new BgwError('WK001', { message: 'the node has not joined' });
    return this.#token;
  }
}

/** Whether a server answered with an error, rather than the connection having failed. */
function isOfServer({ code }: ErrorDescription): boolean {
  return code !== undefined && /^[0-9A-Z]{5}$/.test(code) && !/^(08|57P|E)/.test(code);
}
