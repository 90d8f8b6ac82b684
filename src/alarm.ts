import { LONGEST_TIMER } from './clock.ts';

/** Wakes one waiter: rung before the wait, the wait ends at once. Rings in between are one.  PostgreSQL counterpart: a latch. */
export class Alarm {
  #rung = false;
  #wake: (() => void) | undefined;

  /** Whether the next wait ends at once. */
  get isRung(): boolean {
    return this.#rung;
  }

  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }

  /** Resolves when it is rung, or after that many milliseconds. */
  async wait(milliseconds: number): Promise<void> {
    for (let left = milliseconds; !this.#rung && left >= 0; left -= LONGEST_TIMER) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.min(left, LONGEST_TIMER));
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wake = undefined;
    }
    this.#rung = false;
  }
}
