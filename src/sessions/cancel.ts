/**
 * Ending a statement from outside, for real (I11): the statement is cancelled on the server, or its backend terminated
 * and seen gone; a socket is never abandoned with a statement behind it.  A worker can trap a cancel (HARDENING A7).
 */
import type { Clock } from '../clock.ts';
import type { Backend } from './session.ts';

/** What is asked of the server, on the control session. */
export interface Signaller {
  cancelBackend(backend: Backend): Promise<boolean>;
  terminateBackend(backend: Backend): Promise<boolean>;
}

export interface EndOptions {
  backend: Backend;
  /** Resolves when the statement has ended. */
  ended: Promise<unknown>;
  /** Milliseconds between the cancel and the terminate. */
  grace: number;
}

/** What may end a statement from outside: a cancel, a SIGTERM, its timeout. */
export class Limit {
  /** Whether its timeout has ended it. */
  expired = false;
  readonly #signaller: Signaller;
  readonly #options: EndOptions;
  readonly #timer: NodeJS.Timeout | undefined;
  #isEnding = false;
  /** What is on its way to the backend. */
  readonly #sent: Promise<unknown>[] = [];

  /** `timeout`: in seconds; null: none. */
  constructor(signaller: Signaller, options: EndOptions, timeout: number | null) {
    this.#signaller = signaller;
    this.#options = options;
    if (timeout !== null) this.#timer = setTimeout(() => ((this.expired = true), this.end()), timeout * 1000);
  }

  /** As pg_cancel_backend does: a command that traps it goes on. */
  cancel(): void {
    this.#sent.push(this.#signaller.cancelBackend(this.#options.backend).catch(() => false));
  }

  /** Cancels it, and terminates its backend if that does not end it. */
  end(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#sent.push(endStatement(this.#signaller, this.#options).catch(() => this.#options.ended));
  }

  /** The statement has ended.  Returns what is to be awaited before anybody else gets the session, if anything was sent. */
  lift(): Promise<unknown> | undefined {
    clearTimeout(this.#timer);
    return this.#sent.length > 0 ? Promise.all(this.#sent) : undefined;
  }
}

/** Cancels the statement; terminates its backend if it has not ended by then. */
export async function endStatement(
  signaller: Signaller,
  { backend, ended, grace }: EndOptions,
): Promise<'cancelled' | 'terminated'> {
  await signaller.cancelBackend(backend);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(() => resolve('late'), grace);
  });
  const first = await Promise.race([ended.then(() => 'ended' as const), late]);
  clearTimeout(timer);
  if (first === 'ended') return 'cancelled';
  await signaller.terminateBackend(backend);
  await ended;
  return 'terminated';
}

/** Terminates a backend and sees it gone. */
export async function endBackend(signaller: Signaller, backend: Backend, clock: Clock): Promise<void> {
  for (let wait = 5; await signaller.terminateBackend(backend); wait = Math.min(wait * 2, 200)) await clock.sleep(wait);
}
