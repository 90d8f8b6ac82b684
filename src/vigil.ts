/**
 * When a node looks by itself instead of being rung.  Commits that notify wait for each other, through the whole flush: so
 * when several backends ring at about the same time, the node promises to look (bgw.stay_awake), and their launches do not
 * ring (sql/doorbell.sql) until the promise ends.  Called by src/controller.ts.
 * A launch that saw the promise may commit after its end: the looks go on, each as long after the one before as the promise
 * is past.  So such a launch waits no longer than its own commit took, and no longer than a poll interval (I10).
 */
import type { Clock } from './clock.ts';

/** As many backends that ring within this time (ms) stand in each other's way; one that waits for each launch does not. */
const SEVERAL = 4;
const AT_ONCE = 50;
/** Milliseconds between two looks of a node that is awake: what a launch waits at most instead of a ring. */
const LOOK_EVERY = 10;

export class Vigil {
  readonly #clock: Clock;
  /** When each backend has rung last: those of the last moments. */
  readonly #rings = new Map<number, number>();
  #isWanted = false;
  #endsAt = -Infinity;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  rung(pid: number): void {
    const now = this.#clock.monotonic();
    for (const [other, at] of this.#rings) if (now - at > AT_ONCE) this.#rings.delete(other);
    this.#rings.set(pid, now);
    this.#isWanted ||= this.#rings.size >= SEVERAL && now >= this.#endsAt;
  }

  /** Whether to promise to look. */
  isWanted(): boolean {
    return this.#isWanted;
  }

  /** The promise was made, that many milliseconds long; a little of that is over, so that it is kept a little longer. */
  keep(milliseconds: number): void {
    this.#isWanted = false;
    this.#rings.clear();
    this.#endsAt = this.#clock.monotonic() + milliseconds;
  }

  /** In how many milliseconds to look again; Infinity: nothing was promised. */
  nextLook(): number {
    return Math.max(LOOK_EVERY, this.#clock.monotonic() - this.#endsAt);
  }
}
