/**
 * THE POSTMASTER.  #serve is the postmaster's ServerLoop: report what happened, take orders, obey, sleep until something
 * rings.  Level-based: a wake-up says "look", never "what".  Keeps I10: a lost notification costs one poll interval.
 * Next: sql/control/take_orders.sql, then src/hosts/sql-host.ts or src/hosts/process-host.ts.
 */
import type { ClientConfig } from 'pg';
import { Alarm } from './alarm.ts';
import { Doorbell } from './doorbell.ts';
import { backOff } from './clock.ts';
import { BgwError, describeError, isPassing } from './errors.ts';
import { EventQueue } from './events.ts';
import { BEGIN, Frontier } from './frontier.ts';
import type { Host } from './hosts/host.ts';
import { ProcessHost } from './hosts/process-host.ts';
import { Roster } from './hosts/roster.ts';
import { SharedMemoryHost } from './hosts/shared-memory-host.ts';
import { Spares } from './hosts/spares.ts';
import { SqlHost } from './hosts/sql-host.ts';
import type { WorkerProcess } from './hosts/worker-process.ts';
import type { LoadedLibrary } from './libraries.ts';
import { type Abandonment, Node, type NodeSettings } from './node.ts';
import type { Observation, Observe } from './observation.ts';
import type { Claim, StartOrder } from './orders.ts';
import { lastingConnection, workerConnection } from './sessions/lasting.ts';
import { Pool } from './sessions/pool.ts';
import { Vigil } from './vigil.ts';

export interface ControllerOptions extends NodeSettings {
  libraries: readonly LoadedLibrary[];
  /** Workers of start time postmaster_start, to be started before the database can be reached. */
  early?: readonly StartOrder[];
  /** Given if the settings of the catalog were not at hand when the libraries were loaded: loads them again, once they are. */
  reloadLibraries?: (() => Promise<readonly LoadedLibrary[]>) | undefined;
  /** What was observed before there was a controller, for bgw_log. */
  earlier?: readonly Observation[];
  onReady?: (() => void) | undefined;
}

/** Milliseconds between SIGTERM and the end by force. */
const GRACE = 5000;
/** As long as an init has when libraries are loaded: a worker runs it again. */
const START_WITHIN = 15_000;
/** Milliseconds that a report waits for others while the slots are busy with what was claimed ahead. */
const REPORTS_TOGETHER = 5;
/** After so many looks in a row during each of which it was rung again, a node waits as many milliseconds before the next: one look then does for several. */
const BUSY_AFTER = 8;
const LOOKS_APART = 2;
/** Milliseconds that a node sleeps at least before it looks whether anything is registered at all. */
const POLL = 1000;

export class Controller {
  readonly #options: ControllerOptions;
  readonly #alarm = new Alarm();
  /** Rung when nothing is left of what was claimed ahead. */
  readonly #drained = new Alarm();
  /** Since the last look somebody has rung: most likely for a launch. */
  #isRung = false;
  /** The last look was only for what was launched. */
  #wasHurried = false;
  /** After the last look there was nothing to do for as long as a poll lasts, unless somebody rang. */
  #hasSlept = false;
  readonly #vigil: Vigil;
  readonly #frontier: Frontier;
  readonly #events: EventQueue;
  readonly #observe: Observe;
  readonly #node: Node;
  readonly #pool: Pool;
  readonly #roster: Roster;
  readonly #spares: Spares;
  readonly #sharedMemory = new SharedMemoryHost();
  #libraries: readonly LoadedLibrary[];
  /** Those workers, until the database has a claim for them. */
  #early: StartOrder[];

  constructor(options: ControllerOptions) {
    const { clock, maxWorkerProcesses } = options;
    this.#options = options;
    this.#vigil = new Vigil(clock);
    this.#frontier = new Frontier(clock);
    this.#libraries = options.libraries;
    this.#early = [...(options.early ?? [])];
    this.#events = new EventQueue(clock, () => this.#alarm.ring());
    for (const observation of options.earlier ?? []) this.#events.observe(observation);
    this.#observe = (observation) => {
      options.observe(observation);
      this.#events.observe(observation);
    };
    this.#node = new Node({
      ...options,
      observe: this.#observe,
      libraries: () => this.#libraries,
      early: () => this.#early,
      adopted: (claims) => this.#adopt(claims),
      runIds: () => this.#roster.runIds(),
      endedRunIds: () => this.#events.endedRunIds(),
      keepRuns: (runIds) => this.#roster.keep(runIds),
      abandonWorkers: (why) => this.#abandonWorkers(why),
    });
    this.#pool = new Pool({
      connection: options.connection,
      server: this.#node,
      onClosed: (pid) => this.#events.push({ kind: 'session_closed', pid }),
      observe: this.#observe,
      slots: maxWorkerProcesses,
      clock,
    });
    this.#spares = new Spares({
      server: this.#node,
      onClosed: (pid) => this.#events.push({ kind: 'session_closed', pid }),
    });
    this.#roster = new Roster({
      clock,
      events: this.#events,
      observe: this.#observe,
      maxWorkerProcesses,
      onDrained: () => this.#drained.ring(),
      createHost: (order, isOneOfMany) => this.#createHost(order, isOneOfMany),
    });
  }

  /** Runs until the signal is aborted; then stops every worker, leaves, and resolves. Errors: only those of the first connection. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#alarm.ring(), { once: true });
    using _spares = this.#spares;
    using _sharedMemory = this.#sharedMemory;
    for (const order of this.#early) this.#roster.obey(order);
    if (!(await this.#reachServer(signal))) return;
    await using doorbell = this.#createDoorbell();
    doorbell.start();
    this.#options.onReady?.();
    while (!signal.aborted) {
      try {
        await this.#serve(signal);
      } catch (error) {
        this.#events.refused(error, this.#observe);
        await this.#node.recover(error, signal);
      }
    }
    await this.#leave();
  }

  /** Connects for the first time; a server that is away is waited for by a node that has something running. False: aborted. */
  async #reachServer(signal: AbortSignal): Promise<boolean> {
    const { clock, reloadLibraries } = this.#options;
    let isReached = false;
    try {
      for (let attempt = 0; !isReached && !signal.aborted; attempt += 1) {
        try {
          if (reloadLibraries) this.#libraries = await reloadLibraries();
          await this.#node.connect();
          isReached = true;
        } catch (error) {
          if (this.#early.length === 0 || !isPassing(error)) throw error;
          if (attempt === 0) this.#observe({ kind: 'server_awaited', error: describeError(error) });
          await clock.sleep(backOff(attempt, clock), signal);
        }
      }
    } finally {
      if (!isReached) await this.#roster.stopAll({ silent: true });
    }
    return isReached;
  }

  /** What was started early goes on under the handles that the database has for it; what has none is not to run here. */
  #adopt(claims: readonly Claim[]): void {
    for (const order of this.#early.splice(0)) {
      const claim = claims.find(({ name }) => name === order.name);
      this.#events.adopt(order.handle, claim);
      this.#roster.adopt(order, claim);
    }
  }

  /** The loop. Returns when the signal is aborted; throws when the control session or the epoch is lost. */
  async #serve(signal: AbortSignal): Promise<void> {
    let busy = 0;
    while (!signal.aborted) {
      if (this.#vigil.isWanted()) this.#vigil.keep(await this.#node.stayAwake());
      const wakeMs = await this.#exchange(this.#roster.room());
      busy = this.#alarm.isRung ? busy + 1 : 0;
      const pause = Math.min(wakeMs, this.#vigil.nextLook(), this.#frontier.nextLook());
      await this.#alarm.wait(pause);
      this.#hasSlept = pause >= POLL;
      await this.#waitForMore(busy);
    }
  }

  /** Lets one exchange do for several, where nothing stands idle meanwhile.  `busy`: looks in a row during which it was rung. */
  async #waitForMore(busy: number): Promise<void> {
    switch (this.#roster.stock()) {
      case 'ample':
        await this.#drained.wait(REPORTS_TOGETHER);
        return;
      case 'none':
        if (busy > BUSY_AFTER) await this.#options.clock.sleep(LOOKS_APART);
        return;
      case 'low': // slots would stand idle
    }
  }

  /** Reports, takes orders and obeys them. Returns in how many milliseconds to do so again. */
  async #exchange(room: number): Promise<number> {
    const events = this.#events.batch();
    // Not twice in a row: what is left for the next one is not to wait for ever.
    const hurried: boolean = this.#isRung && !this.#wasHurried && events.length === 0;
    const isPoll = this.#hasSlept && !this.#isRung && events.length === 0;
    this.#isRung = false;
    this.#wasHurried = hurried;
    if (events.some(({ kind }) => kind === 'returned')) this.#frontier.rewind();
    const since = room > 0 ? this.#frontier.next() : BEGIN;
    const { orders, wakeMs, firstTurn } = await this.#node.exchange(events, { room, hurried, since, isPoll });
    this.#events.reported(events);
    if (room > 0) this.#frontier.advance(orders.length, firstTurn);
    for (const order of orders) {
      if (order.kind === 'leave') this.#pool.leave(order.database);
      else this.#roster.obey(order);
    }
    this.#observe({ kind: 'took_orders', orders: orders.length });
    return this.#events.size > 0 ? 0 : wakeMs;
  }

  /** Ends every worker, reports how they ended, and gives up the node. */
  async #leave(): Promise<void> {
    const stopped = this.#roster.stopAll({ silent: false });
    try {
      while (this.#roster.runIds().length > 0 || this.#events.size > 0) {
        await this.#exchange(-1);
        await Promise.race([this.#alarm.wait(100), stopped]);
      }
      this.#spares.abandon();
      await this.#pool.close(new BgwError('57P01', { message: 'the controller is stopping' }));
      await this.#exchange(-1);
      await this.#node.leave();
    } catch (error) {
      this.#observe({ kind: 'unexpected_error', during: 'reporting the last exits', error: describeError(error) });
      this.#pool.abandon();
      await this.#node.close(); // nobody waits for an answer any more
      await stopped;
    }
    await this.#node.close();
  }

  /** Ends every worker without the database: it cannot be reached, or takes this node's word no longer, or not yet. */
  async #abandonWorkers(why: Abandonment): Promise<void> {
    const silent = why !== 'lease_ended';
    const stopped = this.#roster.stopAll({ silent });
    // After a promotion there is a control session: what the workers run is cancelled on the server, and seen to end.
    if (why === 'promoted') await stopped;
    this.#pool.abandon();
    this.#spares.abandon();
    await stopped;
    if (!silent) return;
    this.#events.clear();
    this.#early = [];
  }

  #createHost(order: StartOrder, isOneOfMany: boolean): Host {
    const { clock } = this.#options;
    const context = {
      clock,
      events: this.#events,
      observe: this.#observe,
      server: this.#node,
      grace: GRACE,
      startWithin: START_WITHIN,
    };
    if (order.command !== null) return new SqlHost(order, isOneOfMany, this.#pool, context);
    const library = this.#libraries.find(({ name }) => name === order.library_name)?.url ?? '';
    const connection = this.#connectionFor(order);
    const process = this.#createProcess(order, connection);
    return new ProcessHost(order, { library, connection: connection ?? {}, process }, context);
  }

  /** One that starts before the server can be reached has no sessions: undefined. */
  #connectionFor({ flags, database }: StartOrder): ClientConfig | undefined {
    if (!flags.includes('backend_database_connection')) return undefined;
    return { ...workerConnection(this.#options.connection, this.#node.serverVersion), database };
  }

  #createProcess({ run_id: runId, name, flags, database }: StartOrder, connection?: ClientConfig): WorkerProcess {
    if (flags.includes('shmem_access')) return this.#sharedMemory.createThread(runId, name);
    // A spare has a session only where the node has its own, so that it stands in the way of no DROP DATABASE.
    return this.#spares.take(database === this.#options.connection.database ? connection : undefined);
  }

  #createDoorbell(): Doorbell {
    const { connection, clock } = this.#options;
    return new Doorbell({
      connection: lastingConnection(connection, this.#node.serverVersion),
      clock,
      observe: this.#observe,
      onRing: (pid) => {
        if (pid !== undefined) this.#vigil.rung(pid);
        this.#isRung = true;
        this.#alarm.ring();
      },
      canListen: () => !this.#node.onStandby,
      onBackend: (pid) => this.#node.registerSession(pid, String(connection.database)),
    });
  }
}
