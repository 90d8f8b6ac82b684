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
