/** What a worker does when it ends, the last registered first. PostgreSQL counterpart: before_shmem_exit, proc_exit_prepare. */
import { systemClock } from '../clock.ts';

export type Cleanup = () => Promise<void> | void;

/** Milliseconds for one: two of them fit in the five seconds after SIGTERM. */
const CLEANUP_WITHIN = 2000;

export class Cleanups {
  readonly #warn: (error: unknown) => void;
  #cleanups: Cleanup[] = [];

  constructor(warn: (error: unknown) => void) {
    this.#warn = warn;
  }

  add(cleanup: Cleanup): void {
    this.#cleanups.push(cleanup);
  }

  /** Runs all, whatever becomes of one. */
  async run(): Promise<void> {
    for (let cleanup = this.#cleanups.pop(); cleanup; cleanup = this.#cleanups.pop()) {
      try {
        await this.#runOne(cleanup);
      } catch (error) {
        this.#warn(error);
      }
    }
  }

  async #runOne(cleanup: Cleanup): Promise<void> {
    const done = new AbortController();
    const late = systemClock.sleep(CLEANUP_WITHIN, done.signal).then(() => {
      if (!done.signal.aborted)
        this.#warn({
          severity: 'WARNING',
          message: `a cleanup did not end within ${CLEANUP_WITHIN / 1000} s`,
          detail: 'The worker ends without waiting for it.',
        });
    });
    try {
      await Promise.race([cleanup(), late]);
    } finally {
      done.abort();
    }
  }
}
