/**
 * Sessions for SQL workers: a pool per database, all of the owner that this node logs in as (identity mode self).
 * Grows by need, not by demand: beyond its first two sessions it opens another when none has come back for a while, so
 * that a thousand naps that end at once share a few sessions and a long run delays only itself; and when one-shots have
 * been waiting all that while, so that they share the waits for the disk.
 */
import type { ClientConfig } from 'pg';
import type { Clock } from '../clock.ts';
import { BgwError, describeError } from '../errors.ts';
import type { Observe } from '../observation.ts';
import { endBackend, type Signaller } from './cancel.ts';
import type { Opening } from './configuration.ts';
import { workerConnection } from './lasting.ts';
import { Session, type SessionRegistry } from './session.ts';

export interface PoolOptions {
  connection: ClientConfig;
  server: SessionRegistry & Signaller & { readonly serverVersion: number };
  /** Called when a backend is gone. */
  onClosed: (pid: number) => void;
  observe: Observe;
  /** How many sessions are wanted at most, over all databases; see SPARE. */
  slots: number;
  clock: Clock;
}

/** Milliseconds: a run of that length is worth a connection of its own. */
const STALLED_AFTER = 10;
/** The same while only napping workers wait, who are in no hurry: a machine that hesitates is not taken for a long run. */
const NAPS_STALLED_AFTER = 50;
/** Sessions beyond the slots, so that napping workers get on while long commands fill every slot; only then are they opened. */
const SPARE = 2;
/** Below this many sessions the pool does not wait for one to come back. */
const EAGER = 2;
/** An idle session is closed after this long: backends cost memory, and an idle one can stand in the way of DROP DATABASE. */
const IDLE_FOR = 30_000;
/** CREATE DATABASE copies it, unless told otherwise, and waits five seconds for everybody to leave: no idle session stays. */
const DEFAULT_TEMPLATE = 'template1';

interface Request {
  /** More sessions are opened for it. */
  isUrgent: boolean;
  /** If a session is opened for it, then with these. */
  opening: Opening;
}

interface Waiting extends Request {
  database: string;
  resolve: (session: Session) => void;
  reject: (error: unknown) => void;
}

interface Idle {
  session: Session;
  since: number;
}

export class Pool {
  readonly #options: PoolOptions;
  /** By database, in the order in which they came back. */
  readonly #idle = new Map<string, Idle[]>();
  #idleTimer: NodeJS.Timeout | undefined;
  /** Each with what resolves when its backend is gone. */
  readonly #sessions = new Map<Session, Promise<void>>();
  readonly #waiting: Waiting[] = [];
  /** How many of those who wait are urgent. */
  #urgent = 0;
  #opening = 0;
  /** Those that urgent ones hold. */
  readonly #heldUrgently = new Set<Session>();
  #growTimer: NodeJS.Timeout | undefined;
  #closing = false;
  /** How often every connection was dropped. */
  #abandonments = 0;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** A session of that database, when there is one; in order of asking. */
  async acquire(database: string, request: Request): Promise<Session> {
    const session = this.#takeIdle(database) ?? (await this.#wait(database, request));
    if (request.isUrgent) this.#heldUrgently.add(session);
    return session;
  }

  /** Gives a session back, reset. It goes to the next who waits. */
  async release(session: Session): Promise<void> {
    this.#heldUrgently.delete(session);
    if (!session.isClean && !(await session.reset())) {
      await this.#discard(session);
      return;
    }
    const next = this.#takeWaiting(session.database);
    if (next) {
      next.resolve(session);
      if (this.#urgent === 0) this.#restartGrowTimer();
    } else if (this.#waiting.length > 0 || this.#closing || session.database === DEFAULT_TEMPLATE) {
      await this.#discard(session);
    } else {
      this.#keepIdle(session);
    }
  }

  /** Closes what is idle; what is in use is closed when it comes back. Those who wait are refused. */
  async close(reason: Error): Promise<void> {
    this.#closing = true;
    clearTimeout(this.#growTimer);
    clearTimeout(this.#idleTimer);
    for (const waiting of this.#waiting.splice(0)) waiting.reject(reason);
    this.#urgent = 0;
    const idle = [...this.#idle.values()].flat();
    this.#idle.clear();
    await Promise.all(idle.map(({ session }) => this.#discard(session)));
  }

  /** Closes what is idle in that database. */
  leave(database: string): void {
    for (const { session } of this.#idle.get(database) ?? []) void this.#discard(session);
    this.#idle.delete(database);
  }

  /** Drops every connection: what runs behind them is ended by whoever takes over, or notices by itself. */
  abandon(): void {
    this.#abandonments += 1;
    for (const session of this.#sessions.keys()) session.abandon();
  }

  #wait(database: string, request: Request): Promise<Session> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ database, ...request, resolve, reject });
      if (request.isUrgent) {
        this.#urgent += 1;
        if (this.#urgent === 1) this.#restartGrowTimer();
      }
      this.#grow();
    });
  }

  #configOf(database: string): ClientConfig {
    const { connection, server } = this.#options;
    return { ...workerConnection(connection, server.serverVersion), database, application_name: 'bgw worker' };
  }

  /** The one who has been waiting longest for a session of that database. */
  #takeWaiting(database: string): Waiting | undefined {
    const index = this.#waiting.findIndex((waiting) => waiting.database === database);
    if (index < 0) return undefined;
    const [waiting] = this.#waiting.splice(index, 1);
    if (waiting?.isUrgent) this.#urgent -= 1;
    return waiting;
  }

  #takeIdle(database: string): Session | undefined {
    const idle = this.#idle.get(database);
    for (let found = idle?.pop(); found; found = idle?.pop()) if (found.session.alive) return found.session;
    return undefined;
  }

  #keepIdle(session: Session): void {
    const idle = this.#idle.get(session.database);
    const kept = { session, since: this.#options.clock.monotonic() };
    if (idle) idle.push(kept);
    else this.#idle.set(session.database, [kept]);
    // One timer for all: most are taken again at once.
    this.#idleTimer ??= this.#closeIdleIn(IDLE_FOR);
  }

  #closeIdleIn(milliseconds: number): NodeJS.Timeout {
    return setTimeout(() => this.#closeIdle(), milliseconds).unref();
  }

  /** Closes what has been idle for long enough. */
  #closeIdle(): void {
    const now = this.#options.clock.monotonic();
    let next = Infinity;
    for (const idle of this.#idle.values()) {
      const fresh = idle.findIndex(({ since }) => since > now - IDLE_FOR);
      for (const { session } of idle.splice(0, fresh < 0 ? Infinity : fresh)) void this.#discard(session);
      if (idle[0]) next = Math.min(next, idle[0].since + IDLE_FOR - now);
    }
    this.#idleTimer = next < Infinity ? this.#closeIdleIn(next) : undefined;
  }

  #size(): number {
    return this.#sessions.size + this.#opening;
  }

  /** How many sessions there may be for those who wait. */
  #limit(): number {
    const { slots } = this.#options;
    return this.#urgent > 0 ? slots + SPARE : Math.max(slots, this.#heldUrgently.size + SPARE);
  }

  #grow(): void {
    if (this.#waiting.length <= this.#opening) return;
    if (this.#size() < Math.min(EAGER, this.#limit())) void this.#open();
    else if (this.#growTimer === undefined) this.#restartGrowTimer();
  }

  #restartGrowTimer(): void {
    clearTimeout(this.#growTimer);
    this.#growTimer = undefined;
    if (this.#waiting.length === 0 || this.#closing) return;
    this.#growTimer = setTimeout(
      () => {
        const isFull = this.#size() >= this.#limit();
        if (isFull) void this.#dropIdleElsewhere();
        else if (this.#waiting.length > this.#opening) void this.#open();
        this.#restartGrowTimer();
      },
      this.#urgent > 0 ? STALLED_AFTER : NAPS_STALLED_AFTER,
    );
  }

  async #dropIdleElsewhere(): Promise<void> {
    const idle = [...this.#idle.values()].find((list) => list.length > 0)?.shift();
    if (idle) await this.#discard(idle.session);
  }

  async #open(): Promise<void> {
    const waiting = this.#waiting[this.#opening];
    if (waiting === undefined) return;
    const { database, opening } = waiting;
    this.#opening += 1;
    const before = this.#abandonments;
    try {
      const session = await Session.open(this.#configOf(database), opening, this.#options.server);
      if (before !== this.#abandonments) throw abandoned(session);
      this.#sessions.set(session, this.#seeGone(session));
      if (!session.alive) throw new BgwError('08006', { message: 'the connection to the server was lost' });
      this.#opening -= 1;
      this.#handOver(session);
    } catch (error) {
      this.#opening -= 1;
      this.#takeWaiting(database)?.reject(error);
    }
  }

  #handOver(session: Session): void {
    const next = this.#takeWaiting(session.database);
    if (next) next.resolve(session);
    else if (this.#closing) void this.#discard(session);
    else this.#keepIdle(session);
    this.#grow();
  }

  async #seeGone(session: Session): Promise<void> {
    const { server, clock, onClosed, observe } = this.#options;
    await session.closed;
    const { pid } = session.backend;
    try {
      if (session.isLost) await endBackend(server, session.backend, clock);
    } catch (error) {
      // The node is given up, as a rule: whoever takes over ends it.
      observe({ kind: 'unexpected_error', during: `ending backend ${pid}`, error: describeError(error) });
    }
    this.#sessions.delete(session);
    onClosed(pid);
    this.#grow();
  }

  async #discard(session: Session): Promise<void> {
    const gone = this.#sessions.get(session);
    await session.close();
    await gone;
  }
}

/** It was opened, and registered, for a node that is no more. */
function abandoned(session: Session): BgwError {
  session.abandon();
  return new BgwError('57P01', { message: 'the sessions of the node were given up' });
}
