/**
 * How long this node may trust itself, by its own monotonic clock: since the start of the last call that the database
 * answered, plus the lease, less a margin.  A node that cannot reach the database stops its workers before others may
 * take them over (HARDENING B1, TECHNIQUES T11).
 */
import type { Clock } from './clock.ts';

/** Stopping the workers takes its time as well: the grace, and the kill after it. */
const MARGIN = 7000;

export class Lease {
  readonly #clock: Clock;
  readonly #length: number;
  #heldUntil: number;

  constructor(leaseMs: number, clock: Clock) {
    this.#clock = clock;
    this.#length = leaseMs - MARGIN;
    this.#heldUntil = clock.monotonic() + this.#length;
  }

  held(): boolean {
    return this.#clock.monotonic() < this.#heldUntil;
  }

  /** Milliseconds for which it is held. */
  remaining(): number {
    return this.#heldUntil - this.#clock.monotonic();
  }

  /** A call that began at `startedAt` was answered. */
  renew(startedAt: number): void {
    this.#heldUntil = Math.max(this.#heldUntil, startedAt + this.#length);
  }
}
