/**
 * One process forked ahead, so that a TypeScript worker starts in milliseconds rather than in the time Node.js takes to
 * load.  Kept only on a node that has started such a worker: an idle node has none.
 */
import type { ChildProcess } from 'node:child_process';
import { forkWorkerProcess } from './fork.ts';

/** The next spare is forked when the worker that took the last one has had the processor for itself. */
const FORK_AFTER = 250;

export class Spares implements Disposable {
  #spare: ChildProcess | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  /** A process that is ready to be told what to run, or as good as. */
  take(): ChildProcess {
    const spare = this.#spare;
    this.#spare = undefined;
    this.#forkLater();
    return spare?.connected && spare.exitCode === null ? spare : forkWorkerProcess();
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#spare?.kill('SIGKILL');
  }

  #forkLater(): void {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    this.#timer = setTimeout(() => {
      const spare = forkWorkerProcess();
      // One that dies waiting is replaced when it would be taken.
      spare.on('error', () => undefined);
      this.#spare = spare;
    }, FORK_AFTER).unref();
  }
}
