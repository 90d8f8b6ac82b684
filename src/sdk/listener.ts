/** LISTEN that outlives its session: one that is lost is opened again. PostgreSQL counterpart: Async_Listen. */
import { backOff, systemClock } from '../clock.ts';
import type { Latch } from './latch.ts';
import type { SpiSession } from './spi-session.ts';

export interface ListenerContext {
  spi: Pick<SpiSession, 'listen' | 'relisten'>;
  latch: Latch;
  /** The worker ends: nobody listens any longer. */
  shutdown: AbortSignal;
  warn: (error: unknown) => void;
}

export class Listener {
  readonly #context: ListenerContext;

  constructor(context: ListenerContext) {
    this.#context = context;
  }

  async listen(channel: string, handler?: (payload: string) => void): Promise<void> {
    const { spi, latch } = this.#context;
    await spi.listen(channel, (payload) => {
      handler?.(payload);
      latch.set();
    });
  }

  /** The session is lost. Sets the latch when there is another: what was notified meanwhile is lost. */
  async again(): Promise<void> {
    const { spi, latch, shutdown, warn } = this.#context;
    warn({ severity: 'WARNING', code: '08006', message: 'the connection was lost; the worker will listen again' });
    for (let attempt = 0; !shutdown.aborted; attempt += 1) {
      try {
        await spi.relisten();
        latch.set();
        return;
      } catch (error) {
        if (attempt === 0) warn(error);
        await systemClock.sleep(backOff(attempt, systemClock), shutdown);
      }
    }
  }
}
