/**
 * Named locks of shared memory: exclusive or shared, first come, first served.  They live in the main thread of the
 * shared-memory host, which outlives every holder.  PostgreSQL counterpart: LWLockAcquire, LWLockRelease.
 *
 * A request is waiting or held.  It is granted when nobody waits before it and no holder is in conflict with it; so a
 * waiting exclusive request is not overtaken by shared ones that come later.
 */
export type LockMode = 'exclusive' | 'shared';

interface Request {
  mode: LockMode;
  granted: () => void;
}

interface Lock {
  held: Set<Request>;
  waiting: Set<Request>;
}

export class Locks {
  readonly #locks = new Map<string, Lock>();

  /** Queues up for a lock; calls `granted` once it is held. Returns what gives the lock, or the place in the queue, back. */
  acquire(name: string, mode: LockMode, granted: () => void): () => void {
    const lock = this.#locks.get(name) ?? { held: new Set(), waiting: new Set() };
    this.#locks.set(name, lock);
    const request = { mode, granted };
    lock.waiting.add(request);
    grant(lock);
    return () => {
      lock.held.delete(request);
      lock.waiting.delete(request);
      grant(lock);
      if (lock.held.size === 0 && this.#locks.get(name) === lock) this.#locks.delete(name);
    };
  }
}

function grant(lock: Lock): void {
  for (const request of lock.waiting) {
    if (!isCompatible(request, lock.held)) return;
    lock.waiting.delete(request);
    lock.held.add(request);
    request.granted();
  }
}

function isCompatible({ mode }: Request, held: ReadonlySet<Request>): boolean {
  if (held.size === 0) return true;
  return mode === 'shared' && [...held].every((holder) => holder.mode === 'shared');
}
