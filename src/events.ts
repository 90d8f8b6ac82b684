/** What happened on this node and has not been reported yet: bounded, in order, and it wakes the controller. */
import type { Clock } from './clock.ts';
import { describeError } from './errors.ts';
import { lineOf } from './log.ts';
import type { Observation, Observe } from './observation.ts';
import type { Claim, Event } from './orders.ts';

/** Log lines kept while the server is away, or slower than what workers say (I13). All other events are few: some per worker. */
const MOST_LINES = 5000;
/** Events of one report: a batch stays well below a megabyte. */
const MOST_AT_ONCE = 1000;

type EventWithoutTime = Event extends infer Each ? (Each extends unknown ? Omit<Each, 'at'> : never) : never;

export class EventQueue {
  readonly #clock: Clock;
  readonly #wake: () => void;
  #events: Event[] = [];
  #lines = 0;
  #dropped = 0;
  #atOnce = MOST_AT_ONCE;

  constructor(clock: Clock, wake: () => void) {
    this.#clock = clock;
    this.#wake = wake;
  }

  push(event: EventWithoutTime): void {
    if (event.kind === 'log' && (this.#lines += 1) > MOST_LINES) {
      this.#lines -= 1;
      this.#dropped += 1;
      return;
    }
    this.#events.push(Object.assign(event, { at: this.#clock.monotonic() }));
    this.#wake();
  }

  /** The line that an observation is worth goes to bgw.log. */
  readonly observe: Observe = (observation: Observation) => {
    const line = lineOf(observation);
    // What is about the node itself stays in its own log: the server may be away, and the operator looks there.
    if (line?.handle !== undefined || observation.kind === 'library_failed')
      this.push({ kind: 'log', ...line } as EventWithoutTime);
  };

  /** The next batch, in order; it stays here until `reported`. */
  batch(): readonly Event[] {
    if (this.#dropped > 0) {
      const message = `${this.#dropped} log lines were dropped: workers said more than the server took`;
      this.#dropped = 0;
      this.#events.push({ kind: 'log', severity: 'WARNING', message, at: this.#clock.monotonic() });
      this.#lines += 1;
    }
    return this.#events.slice(0, this.#atOnce);
  }

  reported(batch: readonly Event[]): void {
    // Not simply the first ones: `clear` may have come in between.
    const reported = new Set(batch);
    this.#events = this.#events.filter((event) => !reported.has(event));
    this.#lines = this.#events.filter((event) => event.kind === 'log').length;
    this.#atOnce = Math.min(MOST_AT_ONCE, this.#atOnce * 2);
  }

  /** The server refused a batch as invalid: what follows is sent one by one, and what is still refused is dropped. */
  refused(error: unknown, observe: Observe): void {
    if (!/^2[23]/.test(describeError(error).code ?? '')) return;
    if (this.#atOnce === 1) {
      observe({
        kind: 'unexpected_error',
        during: `reporting "${this.#events[0]?.kind}"`,
        error: describeError(error),
      });
      this.reported(this.#events.slice(0, 1));
    }
    this.#atOnce = 1;
  }

  /** The database has claimed what ran without it: what it did goes by that name. Without a claim, nobody wants to know. */
  adopt(localHandle: string, claim: Claim | undefined): void {
    this.#events = this.#events.flatMap((event) => {
      if (!('handle' in event) || event.handle !== localHandle) return [event];
      return claim ? [{ ...event, ...claim }] : [];
    });
  }

  /** After the node was fenced: others have settled what these are about. */
  clear(): void {
    this.#events = [];
    this.#lines = 0;
  }

  /** Run ids of attempts whose end has not been reported. */
  endedRunIds(): string[] {
    return this.#events.flatMap((event) => (event.kind === 'exited' ? [event.run_id] : []));
  }

  get size(): number {
    return this.#events.length;
  }
}
