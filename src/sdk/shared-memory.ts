/**
 * bgw.shmem: what a worker with the flag shmem_access shares with the others of its node: named segments and named locks.
 * Both are gone, and segments are zeroes again, after a crash of any of these workers, and when the controller ends.
 * PostgreSQL counterpart: ShmemInitStruct, GetNamedLWLockTranche, LWLockAcquire.
 * The other side: src/sdk/shared-memory-server.ts in the main thread of the shared-memory host.
 */
import type { MessagePort } from 'node:worker_threads';
import { BgwError } from '../errors.ts';
import type { LockMode } from './locks.ts';
import type { Segment, SharedMemoryAnswer, SharedMemoryRequest } from './shared-memory-server.ts';
import { layOut, type Struct, type StructFields } from './struct.ts';

export interface LockOptions {
  /** Milliseconds to wait at most, up to 2147483647; 0: not at all. Default: for ever. */
  timeout?: number;
}

/** A lock that is held. `using lock = await bgw.shmem.lock(...)` gives it back at the end of the block. */
export interface HeldLock extends Disposable {
  /** Gives the lock back; a second call does nothing. */
  release(): void;
}

interface Pending {
  resolve: (answer: SharedMemoryAnswer) => void;
  reject: (error: BgwError) => void;
}

export class SharedMemory {
  readonly #port: MessagePort;
  readonly #pending = new Map<number, Pending>();
  #checkForInterrupts: () => void = () => undefined;
  /** What interrupt was told. */
  #interruption: BgwError | undefined;
  #lastId = 0;

  /** @internal */
  constructor(port: MessagePort) {
    this.#port = port;
    port.on('message', (answer: SharedMemoryAnswer) => this.#receive(answer));
  }

  /**
   * A segment by name: made, and all zeroes, for the first worker that asks for it; the same memory for every other
   * (ShmemInitStruct).  Errors: 22023 it has another size, 53200 there is not enough memory.
   */
  async segment(name: string, bytes: number): Promise<Segment> {
    checkName('segment', name);
    if (!Number.isSafeInteger(bytes) || bytes <= 0) {
      throw invalid(`size of shared memory segment "${name}" is not a positive number of bytes: ${bytes}`);
    }
    const { segment } = await this.#ask({ kind: 'segment', id: this.#nextId(), name, bytes });
    if (!segment) throw new TypeError('an answer without a segment');
    return segment;
  }

  /**
   * A segment as typed arrays, one a field, so that nobody computes offsets.  Use Atomics, or hold a lock.
   * `found` and errors: as of `segment`.
   *
   * @example
   * const { struct } = await bgw.shmem.struct('logins', { total: BigInt64Array, byHour: [Int32Array, 24] });
   * Atomics.add(struct.total, 0, 1n);
   */
  async struct<Fields extends StructFields>(
    name: string,
    fields: Fields,
  ): Promise<{ struct: Struct<Fields>; found: boolean }> {
    const { bytes, view } = layOut(fields);
    const { buffer, found } = await this.segment(name, bytes);
    return { struct: view(buffer), found };
  }

  /**
   * Acquires a lock by name, shared with others or exclusively; first come, first served.  It is given back by `release`, and
   * when the worker ends, however it ends.  Locks do not nest: a holder that asks again waits for itself.
   * Errors: 55P03 not within the timeout; 57P01 SIGTERM came, or the controller died, while it waited.  After a SIGTERM it
   * waits for a second at most, and if that has no handler, not at all until the main loop has returned: 57P01 then, too.
   */
  async lock(name: string, mode: LockMode, { timeout }: LockOptions = {}): Promise<HeldLock> {
    checkName('lock', name);
    if (mode !== 'exclusive' && mode !== 'shared') {
      throw invalid(`lock "${name}": unrecognized mode "${String(mode)}"`, 'Available modes: exclusive, shared.');
    }
    if (timeout !== undefined && !(timeout >= 0 && timeout <= LONGEST_TIMEOUT)) {
      throw invalid(`lock "${name}": ${timeout} ms is outside the valid range for a timeout (0 .. ${LONGEST_TIMEOUT})`);
    }
    this.#checkForInterrupts();
    const id = this.#nextId();
    await (this.#interruption === undefined || (timeout !== undefined && timeout <= LAST_WAIT)
      ? this.#ask({ kind: 'lock', id, name, mode, timeout })
      : this.#askForTheLastTime({ kind: 'lock', id, name, mode, timeout: LAST_WAIT }, this.#interruption));
    const release = (): void => this.#post({ kind: 'release', id });
    return { release, [Symbol.dispose]: release };
  }

  /** Runs `work` while holding the lock; gives it back when `work` has returned or thrown. Errors: those of `lock` and of `work`. */
  async withLock<Result>(
    name: string,
    mode: LockMode,
    work: () => Promise<Result> | Result,
    options?: LockOptions,
  ): Promise<Result> {
    using _lock = await this.lock(name, mode, options);
    return await work();
  }

  /** @internal SIGTERM came, or the controller is gone: what is waited for is given up. */
  interrupt(error: BgwError): void {
    this.#interruption = error;
    for (const [id, { reject }] of this.#pending) {
      this.#post({ kind: 'release', id });
      reject(error);
    }
    this.#pending.clear();
  }

  /** @internal `check` is called before each wait for a lock; throws what ends the worker. */
  guard(check: () => void): void {
    this.#checkForInterrupts = check;
  }

  /** Nothing else would end the wait: the kill that follows would reset the memory of everybody. */
  async #askForTheLastTime(request: SharedMemoryRequest, interruption: BgwError): Promise<void> {
    try {
      await this.#ask(request);
    } catch (error) {
      throw error instanceof BgwError && error.code === '55P03' ? interruption : error;
    }
  }

  #nextId(): number {
    return (this.#lastId += 1);
  }

  #ask(request: SharedMemoryRequest): Promise<SharedMemoryAnswer> {
    return new Promise((resolve, reject) => {
      this.#pending.set(request.id, { resolve, reject });
      this.#post(request);
    });
  }

  /** An answer that nobody waits for any longer was given back by interrupt. */
  #receive(answer: SharedMemoryAnswer): void {
    const pending = this.#pending.get(answer.id);
    this.#pending.delete(answer.id);
    if (answer.error) pending?.reject(new BgwError(answer.error.code, answer.error));
    else pending?.resolve(answer);
  }

  #post(request: SharedMemoryRequest): void {
    this.#port.postMessage(request);
  }
}

/** Milliseconds that a worker which is to end waits for a lock: a cleanup has two seconds, and the grace is five. */
const LAST_WAIT = 1000;

/** The range of PostgreSQL's lock_timeout, which is also that of a timer. */
const LONGEST_TIMEOUT = 2 ** 31 - 1;

function checkName(what: string, name: string): void {
  if (typeof name === 'string' && name !== '' && Buffer.byteLength(name) <= 63) return;
  throw invalid(`invalid ${what} name: "${name}"`, undefined, 'A name has 1 to 63 bytes.');
}

function invalid(message: string, hint?: string, detail?: string): BgwError {
  return new BgwError('22023', { message, hint, detail });
}
