/**
 * How far the claims of this node have come in the queue.  What was claimed stays in its index until a vacuum has been there,
 * which an old snapshot keeps away, and a claim that begins at the first entry walks all of it.  So a busy node begins where
 * the claim before found the first process.  Once in a while one begins at the first entry, for what stands before the
 * frontier: it was committed late, or waits again.  Called by src/controller.ts.
 */
import type { Clock } from './clock.ts';

/** Milliseconds between two claims from the first entry: what stands before the frontier waits no longer. */
const WINDOW = 200;
/** More, where such a claim takes long: as many times as long as it took, and no longer than a node polls (I10). */
const SHARE = 10;
const LONGEST_WINDOW = 2000;
/** A node that claims so many in a window is busy; before that the walk is short. */
const BUSY = 50;
/** Seconds that the frontier stays behind: a launch has its turn some moments before it commits. */
const MARGIN = 0.05;
/** Before every turn. */
export const BEGIN: number = -Infinity;

export class Frontier {
  readonly #clock: Clock;
  #turn = BEGIN;
  #startedAt = -Infinity;
  #endsAt = -Infinity;
  #isBusy = false;
  /** In this window. */
  #claims = 0;
  #claimed = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The turn at which the claim that is made now begins. */
  next(): number {
    const now = this.#clock.monotonic();
    if (now >= this.#endsAt) {
      this.#isBusy = this.#claimed >= BUSY && now < this.#endsAt + WINDOW;
      this.#claims = 0;
      this.#claimed = 0;
      this.#turn = BEGIN;
      this.#startedAt = now;
      this.#endsAt = now + WINDOW;
    }
    return this.#turn;
  }

  /** That claim has been made: of how many, and the turn of the first, if there was one. */
  advance(claimed: number, turn: number | null): void {
    this.#claims += 1;
    this.#claimed += claimed;
    if (this.#claims === 1) {
      const now = this.#clock.monotonic();
      this.#endsAt = now + Math.min(LONGEST_WINDOW, Math.max(WINDOW, SHARE * (now - this.#startedAt)));
    }
    if (this.#isBusy && turn !== null) this.#turn = turn - MARGIN;
  }

  /** This node gives back what it has claimed: that is before the frontier, and comes first. */
  rewind(): void {
    this.#turn = BEGIN;
  }

  /** In how many milliseconds to claim again; Infinity: nothing has been left out. */
  nextLook(): number {
    return this.#turn === BEGIN ? Infinity : Math.max(0, this.#endsAt - this.#clock.monotonic());
  }
}
