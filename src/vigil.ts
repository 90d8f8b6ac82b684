/**
 * When a node looks by itself instead of being rung.  Commits that notify wait for each other, through the whole flush: so
 * when several backends ring at about the same time, the node promises to look (bgw.stay_awake), and launches do not ring
 * (sql/doorbell.sql) until the promise ends.  Called by src/controller.ts.
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
  #isCrowded = false;
  #endsAt = -Infinity;
  #prolongAt = Infinity;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  rung(pid: number): void {
    const now = this.#clock.monotonic();
    if (now < this.#endsAt) return; // it had committed before the promise, or is no launch
    for (const [other, at] of this.#rings) if (now - at > AT_ONCE) this.#rings.delete(other);
    this.#rings.set(pid, now);
    this.#isCrowded ||= this.#rings.size >= SEVERAL;
  }

  /** Whether to promise to look, or to ask whether to go on: there are no rings now that would tell. */
  isWanted(): boolean {
    const now = this.#clock.monotonic();
    return now < this.#endsAt ? now >= this.#prolongAt : this.#isCrowded;
  }

  /** It is promised for that many milliseconds, less what the answer took: the promise is kept a little longer. 0: no longer than before. */
  keep(milliseconds: number): void {
    const now = this.#clock.monotonic();
    this.#isCrowded = false;
    this.#prolongAt = milliseconds > 0 ? now + milliseconds / 2 : Infinity;
    if (milliseconds > 0) this.#endsAt = now + milliseconds;
  }

  /** In how many milliseconds to look again; Infinity: nothing was promised. */
  nextLook(): number {
    return Math.max(LOOK_EVERY, this.#clock.monotonic() - this.#endsAt);
  }
}
