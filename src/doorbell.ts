/**
 * LISTEN bgw: wakes the controller when somebody rings (sql/doorbell.sql).  Never carries meaning: a wake-up says
 * "look", and polling every two seconds, four where nothing is registered, finds the same (I10).
 * On pg-listen, treated as a doorbell that may be dead: it rings itself, and is built anew when it does not hear that.
 * Next: src/controller.ts.
 */
import { randomBytes } from 'node:crypto';
import type { ClientConfig } from 'pg';
import pgListen, { type Subscriber } from 'pg-listen';
import type { Clock } from './clock.ts';
import { describeError } from './errors.ts';
import type { Observe } from './observation.ts';

export interface DoorbellOptions {
  connection: ClientConfig;
  clock: Clock;
  observe: Observe;
  /** The backend that rang; undefined: it may have rung while nobody listened. */
  onRing: (pid?: number) => void;
  /** A standby refuses LISTEN, and would log each attempt. */
  canListen: () => boolean;
  /** The backend that listens, so that it can be registered as a session of this node. */
  onBackend: (pid: number) => Promise<unknown>;
}

const CHANNEL = 'bgw';
/** How often it rings itself: whether its connection is there the system asks oftener (src/sessions/lasting.ts).  Until it is noticed the polls do its work. */
const SELF_TEST_EVERY = 300_000;
/** One that was heard for so long starts anew with its attempts. */
const STABLE_AFTER = 60_000;
const HEARD_WITHIN = 5000;
const CLOSED_WITHIN = 1000;
/** As long as the controller polls: a promotion is seen no earlier. */
const ASK_AGAIN_AFTER = 2000;

export class Doorbell implements AsyncDisposable {
  readonly #options: DoorbellOptions;
  readonly #stop = new AbortController();
  #served: Promise<void> = Promise.resolve();

  constructor(options: DoorbellOptions) {
    this.#options = options;
  }

  /** Listens in the background until it is disposed of; a server that is away is no error of the caller. */
  start(): void {
    this.#served = this.#serve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#served;
  }

  async #serve(): Promise<void> {
    const { clock, observe } = this.#options;
    let reported = false;
    for (let attempt = 0; !this.#stop.signal.aborted; attempt += 1) {
      if (!this.#options.canListen()) {
        attempt = -1;
        await clock.sleep(ASK_AGAIN_AFTER, this.#stop.signal);
        continue;
      }
      const startedAt = clock.monotonic();
      try {
        await this.#listen(() => {
          if (reported) observe({ kind: 'doorbell_heard' });
          reported = false;
        });
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        if (!reported) observe({ kind: 'doorbell_lost', error: describeError(error) });
        reported = true;
      }
      if (clock.monotonic() - startedAt > STABLE_AFTER) attempt = 0;
      await clock.sleep(
        Math.min(10_000, 500 * 2 ** Math.min(attempt, 5)) * (0.5 + clock.random() / 2),
        this.#stop.signal,
      );
    }
  }

  /** Listens until it no longer hears itself, or its connection is lost. */
  async #listen(onHeard: () => void): Promise<void> {
    const ownChannel = `bgw_self_test_${randomBytes(8).toString('hex')}`;
    const subscriber = pgListen.default(
      { ...this.#options.connection, application_name: 'bgw doorbell' },
      // One attempt: coming back is this class's work, with jitter and without a limit.
      { native: false, paranoidChecking: false, parse: identity, retryLimit: 1, retryTimeout: 0 },
    );
    const failure = new Promise<never>((_resolve, reject) => {
      subscriber.events.on('error', reject);
      subscriber.events.on('reconnect', () => reject(new Error('the connection of the doorbell was lost')));
    });
    failure.catch(() => undefined);
    try {
      await Promise.race([this.#subscribe(subscriber, ownChannel), failure]);
      while (!this.#stop.signal.aborted) {
        await Promise.race([this.#hearOneself(subscriber, ownChannel), failure]);
        if (!this.#stop.signal.aborted) onHeard();
        await Promise.race([this.#options.clock.sleep(SELF_TEST_EVERY, this.#stop.signal), failure]);
      }
    } finally {
      await this.#close(subscriber);
    }
  }

  /** Of a connection that has failed, pg does not always say that it has ended. */
  async #close(subscriber: Subscriber): Promise<void> {
    const closed = new AbortController();
    void subscriber.close().then(
      () => closed.abort(),
      () => closed.abort(),
    );
    await this.#options.clock.sleep(CLOSED_WITHIN, closed.signal);
  }

  async #subscribe(subscriber: Subscriber, ownChannel: string): Promise<void> {
    subscriber.events.on('notification', ({ channel, processId }) => {
      if (channel === CHANNEL) this.#options.onRing(processId);
    });
    // Only the session that listens to this channel notifies it: what arrives names its backend.
    subscriber.events.once('notification', ({ channel, processId }) => {
      if (channel === ownChannel) void this.#options.onBackend(processId).catch(() => undefined);
    });
    await subscriber.connect();
    await subscriber.listenTo(ownChannel);
    await subscriber.notify(ownChannel);
    await subscriber.listenTo(CHANNEL);
    // Whatever was committed before the LISTEN took effect did not ring here.
    this.#options.onRing();
  }

  async #hearOneself(subscriber: Subscriber, ownChannel: string): Promise<void> {
    const deadline = new AbortController();
    let inTime = false;
    subscriber.notifications.once(ownChannel, () => {
      inTime = true;
      deadline.abort();
    });
    await subscriber.notify(ownChannel);
    await this.#options.clock.sleep(HEARD_WITHIN, AbortSignal.any([deadline.signal, this.#stop.signal]));
    if (!inTime && !this.#stop.signal.aborted) throw new Error('a notification that was sent did not arrive');
  }
}

function identity(payload: string): string {
  return payload;
}
