/**
 * THE POSTMASTER.  serve() is the postmaster's ServerLoop: report what happened, take orders, obey, sleep until
 * something rings.  Level-based: a wake-up says "look", never "what".  Keeps I10: a lost notification costs one poll.
 * Around it: run() joins, reconnects, rejoins after a fencing, and leaves.
 * Next: sql/control/take_orders.sql, then src/hosts/sql-host.ts or src/hosts/process-host.ts.
 */
import type { ClientConfig } from 'pg';
import { Catalog, type NodeToken } from './catalog.ts';
import { backOff, type Clock } from './clock.ts';
import { Doorbell } from './doorbell.ts';
import { BgwError, describeError } from './errors.ts';
import { EventQueue } from './events.ts';
import type { Host } from './hosts/host.ts';
import { ProcessHost } from './hosts/process-host.ts';
import { Roster } from './hosts/roster.ts';
import { SqlHost } from './hosts/sql-host.ts';
import { Lease } from './lease.ts';
import type { LoadedLibrary } from './libraries.ts';
import type { Observe } from './observation.ts';
import type { StartOrder } from './orders.ts';
import { Pool } from './sessions/pool.ts';
import { workerOptions, type Backend } from './sessions/session.ts';
import { Alarm } from './alarm.ts';

export interface ControllerOptions {
  connection: ClientConfig;
  nodeName: string;
  maxWorkerProcesses: number;
  libraries: readonly LoadedLibrary[];
  clock: Clock;
  observe: Observe;
  onReady?: (() => void) | undefined;
}

/** Milliseconds between SIGTERM and the end by force. */
const GRACE = 5000;
/** A control session that comes back more often than this is not worth another line. */
const STABLE_AFTER = 10_000;
/** Sessions beyond max_worker_processes, so that napping workers get on while long commands fill every slot. */
const SPARE_SESSIONS = 2;

export class Controller {
  readonly #options: ControllerOptions;
  readonly #alarm: Alarm;
  readonly #events: EventQueue;
  readonly #observe: Observe;
  readonly #roster: Roster;
  readonly #libraries: ReadonlyMap<string, LoadedLibrary>;
  #catalog: Catalog | undefined;
  #pool: Pool | undefined;
  #token: NodeToken | undefined;
  #lease: Lease | undefined;
  /** The outage that is going on, with its attempts to come back. */
  #outage: { attempts: number } | undefined;
  #resumedAt = -Infinity;

  constructor(options: ControllerOptions) {
    this.#options = options;
    this.#alarm = new Alarm();
    this.#events = new EventQueue(options.clock, () => this.#alarm.ring());
    this.#observe = (observation) => {
      options.observe(observation);
      this.#events.observe(observation);
    };
    this.#libraries = new Map(options.libraries.map((library) => [library.name, library]));
    this.#roster = new Roster({
      context: { clock: options.clock, events: this.#events, observe: this.#observe, signaller: this, grace: GRACE },
      maxWorkerProcesses: options.maxWorkerProcesses,
      createHost: (order) => this.#createHost(order),
    });
  }

  /** Runs until the signal is aborted; then stops every worker, leaves, and resolves. Errors: only those of the first connection. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#alarm.ring(), { once: true });
    await this.#connect();
    await using doorbell = this.#createDoorbell();
    doorbell.start();
    this.#options.onReady?.();
    while (!signal.aborted) {
      try {
        await this.#serve(signal);
      } catch (error) {
        await this.#recover(error, signal);
      }
    }
    await this.#leave();
  }

  /** The loop. Returns when the signal is aborted; throws when the control session or the epoch is lost. */
  async #serve(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const { wakeMs } = await this.#exchange(this.#roster.room());
      await this.#alarm.wait(wakeMs);
    }
  }

  async #exchange(room: number): Promise<{ wakeMs: number }> {
    const { clock } = this.#options;
    const events = this.#events.batch();
    const startedAt = clock.monotonic();
    const { orders, wakeMs } = await this.#connected().exchange(this.#joined(), events, room);
    this.#lease?.renew(startedAt);
    this.#events.reported(events);
    this.#endOutage();
    this.#observe({ kind: 'took_orders', orders: orders.length });
    for (const order of orders) this.#roster.obey(order);
    return { wakeMs: this.#events.size > 0 ? 0 : wakeMs };
  }

  /** What went wrong is observed once per outage; then the node comes back, or joins anew if it was taken over. */
  async #recover(error: unknown, signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const lost = describeError(error);
    await this.#catalog?.close().catch(() => undefined);
    if (lost.code === 'WK001') await this.#afterFencing(lost);
    else if (!this.#outage) this.#observe({ kind: 'connection_lost', error: lost });
    const outage = (this.#outage ??= { attempts: 0 });
    for (; !signal.aborted; outage.attempts += 1) {
      // The first attempt is made at once: most losses are a restart of a connection, not of a server.
      if (outage.attempts > 0) await clock.sleep(backOff(outage.attempts, clock), signal);
      await this.#guardLease();
      try {
        await this.#connect();
        outage.attempts += 1;
        return;
      } catch (again) {
        const described = describeError(again);
        if (described.code === 'WK001') await this.#afterFencing(described);
      }
    }
  }

  /** An outage is over when calls are answered again; a connection that keeps dying is one outage, not many. */
  #endOutage(): void {
    const { clock, nodeName } = this.#options;
    if (!this.#outage || clock.monotonic() - this.#resumedAt < STABLE_AFTER) return;
    this.#observe({ kind: 'node_resumed', node: nodeName, attempts: this.#outage.attempts });
    this.#outage = undefined;
    this.#resumedAt = clock.monotonic();
  }

  async #connect(): Promise<void> {
    const { connection, clock } = this.#options;
    const catalog = await Catalog.connect(connection, clock);
    try {
      if (this.#token) await catalog.resume(this.#token, this.#roster.runIds());
      else await this.#join(catalog);
      await this.#registerOwnSessions(catalog);
    } catch (error) {
      await catalog.close().catch(() => undefined);
      throw error;
    }
    this.#catalog = catalog;
    this.#pool ??= this.#createPool(catalog.serverVersion);
  }

  async #join(catalog: Catalog): Promise<void> {
    const { nodeName, maxWorkerProcesses, clock, libraries, connection } = this.#options;
    const startedAt = clock.monotonic();
    const { leaseMs, ...token } = await catalog.join({ name: nodeName, libraries: [...this.#libraries.keys()], maxWorkerProcesses });
    this.#token = token;
    this.#lease = new Lease(leaseMs, clock);
    this.#lease.renew(startedAt);
    for (const library of libraries) {
      try {
        await catalog.defineLibrary(library);
      } catch (error) {
        this.#observe({ kind: 'library_failed', library: library.name, error: describeError(error) });
      }
    }
    this.#observe({ kind: 'node_joined', node: nodeName, nodeId: token.nodeId, epoch: token.epoch, server: `${connection.host}:${connection.port}` });
  }

  /** kill_idle and its like leave the sessions of a node alone; a fencing ends them. */
  async #registerOwnSessions(catalog: Catalog): Promise<void> {
    const database = String(this.#options.connection.database);
    await catalog.registerSession(this.#joined(), await catalog.ownPid(), database);
  }

  async #afterFencing(error: ReturnType<typeof describeError>): Promise<void> {
    this.#observe({ kind: 'node_fenced', node: this.#options.nodeName, error });
    await this.#roster.stopAll({ silent: true });
    this.#events.clear();
    this.#token = undefined;
  }

  /** A node that cannot reach the database stops its workers before others take them over (HARDENING B1). */
  async #guardLease(): Promise<void> {
    if (!this.#lease || this.#lease.held() || this.#roster.runIds().length === 0) return;
    this.#observe({ kind: 'lease_ended', node: this.#options.nodeName });
    await this.#roster.stopAll({ silent: false });
  }

  async #leave(): Promise<void> {
    const stopped = this.#roster.stopAll({ silent: false });
    try {
      // Workers report while they stop; nothing new is started.
      while (this.#roster.runIds().length > 0 || this.#events.size > 0) {
        await this.#exchange(-1);
        await Promise.race([this.#alarm.wait(100), stopped]);
      }
      await this.#pool?.close(new BgwError('57P01', { message: 'the controller is stopping' }));
      await this.#exchange(-1);
      await this.#connected().leave(this.#joined());
      this.#observe({ kind: 'node_left', node: this.#options.nodeName });
    } catch (error) {
      await stopped;
      this.#observe({ kind: 'unexpected_error', during: 'reporting the last exits', error: describeError(error) });
    }
    await this.#catalog?.close().catch(() => undefined);
  }

  #createHost(order: StartOrder): Host {
    const context = { clock: this.#options.clock, events: this.#events, observe: this.#observe, signaller: this, grace: GRACE };
    if (order.command !== null) return new SqlHost(order, this.#sessions(), context);
    const library = this.#libraries.get(order.library_name ?? '');
    return new ProcessHost(order, {
      library: library?.url ?? '',
      connection: this.#options.connection,
      register: (pid, database) => this.#connected().registerSession(this.#joined(), pid, database),
      onClosed: (pid) => this.#events.push({ kind: 'session_closed', pid }),
    }, context);
  }

  #createPool(serverVersion: number): Pool {
    const { connection, maxWorkerProcesses, clock } = this.#options;
    return new Pool({
      connection: { ...connection, options: [connection.options, workerOptions(serverVersion)].filter(Boolean).join(' '), application_name: 'bgw worker' },
      register: (pid, database) => this.#connected().registerSession(this.#joined(), pid, database),
      onClosed: (pid) => this.#events.push({ kind: 'session_closed', pid }),
      limit: maxWorkerProcesses + SPARE_SESSIONS,
      clock,
    });
  }

  #createDoorbell(): Doorbell {
    return new Doorbell({
      connection: this.#options.connection,
      clock: this.#options.clock,
      observe: this.#observe,
      onRing: () => this.#alarm.ring(),
      onBackend: (pid) => void this.#connected().registerSession(this.#joined(), pid, String(this.#options.connection.database)).catch(() => undefined),
    });
  }

  cancelBackend(backend: Backend): Promise<boolean> {
    return this.#connected().cancelBackend(backend);
  }

  terminateBackend(backend: Backend): Promise<boolean> {
    return this.#connected().terminateBackend(backend);
  }

  #connected(): Catalog {
    if (!this.#catalog) throw new BgwError('08003', { message: 'the control session is not connected' });
    return this.#catalog;
  }

  #joined(): NodeToken {
    if (!this.#token) throw new BgwError('WK001', { message: 'the node has not joined' });
    return this.#token;
  }

  #sessions(): Pool {
    if (!this.#pool) throw new BgwError('08003', { message: 'the control session is not connected' });
    return this.#pool;
  }
}
