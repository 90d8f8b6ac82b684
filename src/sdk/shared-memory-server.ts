/**
 * Segments and locks, as the main thread of the shared-memory host keeps them for its threads.  Each thread asks over a
 * port of its own; what it holds or waits for is given back when it ends.  PostgreSQL counterpart: ShmemIndex, lwlock.c.
 * The other side: src/sdk/shared-memory.ts.
 */
import type { MessagePort } from 'node:worker_threads';
import type { BgwErrorFields } from '../errors.ts';
import { type LockMode, Locks } from './locks.ts';

/** What a thread asks; each but `release` is answered under its id. */
export type SharedMemoryRequest =
  | { kind: 'segment'; id: number; name: string; bytes: number }
  | { kind: 'lock'; id: number; name: string; mode: LockMode; timeout: number | undefined }
  /** Gives back the lock, or the place in its queue, that was asked for under that id. */
  | { kind: 'release'; id: number };

export interface Segment {
  buffer: SharedArrayBuffer;
  /** Whether it was there already. If not, it is all zeroes. */
  found: boolean;
}

/** An answer without segment and error: the lock is held. */
export interface SharedMemoryAnswer {
  id: number;
  segment?: Segment;
  error?: SharedMemoryError;
}

/** What becomes a BgwError in the thread. */
type SharedMemoryError = { code: string } & BgwErrorFields;

export class SharedMemoryServer {
  readonly #segments = new Map<string, SharedArrayBuffer>();
  readonly #locks = new Locks();

  /** Serves one thread. Disposed of when the thread has ended. */
  serve(port: MessagePort): Disposable {
    const releases = new Map<number, () => void>();
    const release = (id: number): void => {
      releases.get(id)?.();
      releases.delete(id);
    };
    const answer = (message: SharedMemoryAnswer): void => port.postMessage(message);
    port.on('message', (request: SharedMemoryRequest) => {
      switch (request.kind) {
        case 'segment':
          answer({ id: request.id, ...this.#segment(request.name, request.bytes) });
          return;
        case 'lock':
          this.#lock(request, { releases, release, answer });
          return;
        case 'release':
          release(request.id);
          return;
        default:
          request satisfies never;
      }
    });
    return {
      [Symbol.dispose]: () => {
        port.close();
        for (const id of releases.keys()) release(id);
      },
    };
  }

  #segment(name: string, bytes: number): { segment: Segment } | { error: SharedMemoryError } {
    const found = this.#segments.get(name);
    if (found && found.byteLength !== bytes) {
      return {
        error: {
          code: '22023',
          message: `shared memory segment "${name}" has another size`,
          detail: `It has ${found.byteLength} bytes; ${bytes} were requested.`,
        },
      };
    }
    try {
      const buffer = found ?? new SharedArrayBuffer(bytes);
      this.#segments.set(name, buffer);
      return { segment: { buffer, found: found !== undefined } };
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      const message = `not enough shared memory for segment "${name}" (${bytes} bytes requested)`;
      return { error: { code: '53200', message } };
    }
  }

  #lock(
    { id, name, mode, timeout }: Extract<SharedMemoryRequest, { kind: 'lock' }>,
    { releases, release, answer }: ThreadState,
  ): void {
    const timer = timeout === undefined ? undefined : setTimeout(() => expire(timeout), timeout);
    const giveBack = this.#locks.acquire(name, mode, () => {
      clearTimeout(timer);
      answer({ id });
    });
    releases.set(id, () => {
      clearTimeout(timer);
      giveBack();
    });
    const expire = (after: number): void => {
      release(id);
      const message = `could not obtain ${mode} lock "${name}" within ${after} ms`;
      answer({ id, error: { code: '55P03', message } });
    };
  }
}

interface ThreadState {
  /** By id of the request: gives the lock or the place in its queue back. */
  releases: Map<number, () => void>;
  release: (id: number) => void;
  answer: (message: SharedMemoryAnswer) => void;
}
