/**
 * Orders that were claimed before there is a slot for them, so that slots do not stand idle while the node reports and
 * claims.  As many as came to their end in the last moments: none where runs are long.  What has not started soon is given
 * back, so that a long run delays only itself; and what is claimed counts as begun should the node die, so they are few.
 */
import type { Clock } from '../clock.ts';
import type { StartOrder } from '../orders.ts';

/** Milliseconds of work that are claimed ahead: a report and a claim of AT_ONCE take half as long. */
const AHEAD = 40;
/** Orders that wait at most. */
const MOST = 1000;
/** Orders of one claim: while it is made, what waits already has to do for the slots. */
const AT_ONCE = 400;
/** Milliseconds after which an order is given back, with all that wait behind it. */
const PATIENCE = 200;

export type Stock = 'none' | 'low' | 'ample';

export class Backlog {
  readonly #clock: Clock;
  readonly #giveBack: (order: StartOrder) => void;
  #waiting: { order: StartOrder; since: number }[] = [];
  #timer: NodeJS.Timeout | undefined;
  /** Runs that ended since then, and in the AHEAD milliseconds before. */
  #since = -Infinity;
  #ended = 0;
  #endedBefore = 0;

  constructor(clock: Clock, giveBack: (order: StartOrder) => void) {
    this.#clock = clock;
    this.#giveBack = giveBack;
  }

  /** A run that took a slot has come to its end. */
  countEnd(): void {
    this.#turn();
    this.#ended += 1;
  }

  /** How many orders may be claimed beyond the free slots. */
  allowance(): number {
    return Math.max(0, Math.min(AT_ONCE, this.#wanted() - this.#waiting.length));
  }

  /** What waits: low, if it may not last until the orders of the next exchange are there. */
  stock(): Stock {
    if (this.#waiting.length === 0) return 'none';
    return this.#waiting.length > this.#wanted() / 2 ? 'ample' : 'low';
  }

  push(order: StartOrder): void {
    this.#waiting.push({ order, since: this.#clock.monotonic() });
    if (this.#timer === undefined) this.#wait();
  }

  /** The next one to start. */
  shift(): StartOrder | undefined {
    return this.#waiting.shift()?.order;
  }

  runIds(): string[] {
    return this.#waiting.map(({ order }) => order.run_id);
  }

  /** Gives back what is not to start here. True: there was one. */
  giveBackIf(isMeant: (order: StartOrder) => boolean): boolean {
    const found = this.#waiting.filter(({ order }) => isMeant(order));
    if (found.length === 0) return false;
    this.#waiting = this.#waiting.filter(({ order }) => !isMeant(order));
    for (const { order } of found) this.#giveBack(order);
    return true;
  }

  #giveBackLate(): void {
    this.#timer = undefined;
    const [first] = this.#waiting;
    // All of them: those that were claimed later would overtake.
    if (first && first.since <= this.#clock.monotonic() - PATIENCE) this.giveBackIf(() => true);
    if (this.#waiting.length > 0) this.#wait();
  }

  #wait(): void {
    this.#timer = setTimeout(() => this.#giveBackLate(), PATIENCE).unref();
  }

  /** How many should wait: twice what was done lately, so that it can grow. */
  #wanted(): number {
    this.#turn();
    return Math.min(MOST, 2 * Math.max(this.#ended, this.#endedBefore));
  }

  #turn(): void {
    const now = this.#clock.monotonic();
    const passed = now - this.#since;
    if (passed < AHEAD) return;
    this.#endedBefore = passed < 2 * AHEAD ? this.#ended : 0;
    this.#ended = 0;
    this.#since = now;
  }
}
