/**
 * The session that a spare (src/hosts/spares.ts) opens before it is told what to run; the worker that it becomes takes it
 * over, if it would open one like it.  Nothing has run in it, and it gets the name and the handle of the worker then:
 * spi-identity.ts.
 */
import { isDeepStrictEqual } from 'node:util';
import type { NoticeMessage } from 'pg-protocol/dist/messages.js';
import { received, type SentConnection } from './channel.ts';
import { type OpenHooks, openSession, type Session } from './session.ts';
import { type Identity, identify, SPARE_NAME } from './spi-identity.ts';
import { rehearse } from './spi-transaction.ts';

export interface PreparedSessionOptions extends Pick<OpenHooks, 'register' | 'closed'> {
  connection: SentConnection;
  /** Milliseconds after which it is closed, unless it has been taken over. */
  keepFor: number;
}

export class PreparedSession {
  readonly #options: PreparedSessionOptions;
  readonly #timer: NodeJS.Timeout;
  /** Resolves when there is a session, or it is clear that there will be none. */
  #ready: Promise<void>;
  #session: Session | undefined;
  /** There is a worker to take it over. */
  #isAssigned = false;
  /** Nobody may use it any longer. */
  #isOver = false;
  readonly #notices: NoticeMessage[] = [];
  #notice = (message: NoticeMessage): void => void this.#notices.push(message);

  constructor(options: PreparedSessionOptions) {
    this.#options = options;
    this.#timer = setTimeout(() => void this.close(), options.keepFor).unref();
    this.#ready = this.#orNone(() => this.#open());
  }

  /** A worker has come that connects so: the session is for it, or closed. */
  assign(connection: SentConnection, identity: Identity): this | undefined {
    if (isDeepStrictEqual(connection, this.#options.connection)) {
      this.#name(identity);
      return this;
    }
    void this.close();
    return undefined;
  }

  /** The session, as if the worker had opened it. undefined: there is none, or its backend is gone. */
  async take(identity: Identity, notice: (message: NoticeMessage) => void): Promise<Session | undefined> {
    this.#name(identity);
    await this.#ready;
    const session = this.#session;
    this.#end();
    if (!session) return undefined;
    this.#notice = notice;
    for (const message of this.#notices) notice(message);
    return session;
  }

  async close(): Promise<void> {
    const session = this.#session;
    this.#end();
    await session?.client.end().catch(() => undefined);
  }

  async #open(): Promise<void> {
    const { connection, register, closed } = this.#options;
    const notice = (message: NoticeMessage): void => this.#notice(message);
    this.#session = await openSession(
      { ...received(connection), application_name: SPARE_NAME },
      { register, closed, notice },
    );
    this.#session.client.once('end', () => this.#end());
    if (this.#isOver) await this.close();
    else if (!this.#isAssigned) await rehearse(this.#session.client);
  }

  #name(identity: Identity): void {
    this.#isAssigned = true;
    const ready = this.#ready;
    this.#ready = this.#orNone(async () => {
      await ready;
      if (this.#session) await identify(this.#session.client, identity);
    });
  }

  /** The worker opens its own if that fails, and says why if it cannot. */
  async #orNone(work: () => Promise<void>): Promise<void> {
    await work().catch(() => this.close());
  }

  #end(): void {
    this.#isOver = true;
    this.#session = undefined;
    clearTimeout(this.#timer);
  }
}
