/**
 * A SQL worker: runs its command on a pooled session; with a nap time it waits on its latch and runs again.
 * PostgreSQL counterpart: the main loop that every C worker writes for itself.  Keeps I8, I11.
 * Next: sql/control/report.sql with what this reports.
 */
import { Alarm } from '../alarm.ts';
import { backOff } from '../clock.ts';
import { describeError, isForServerLog, isPassing } from '../errors.ts';
import type { Severity } from '../observation.ts';
import type { Exit, SettingValue, SignalOrder, StartOrder } from '../orders.ts';
import { Limit } from '../sessions/cancel.ts';
import type { Pool } from '../sessions/pool.ts';
import { lastingNames, runAtomic, runSession, type RunResult } from '../sessions/run.ts';
import type { Backend, Session } from '../sessions/session.ts';
import type { OnNotice } from '../sessions/wire.ts';
import { administratorCommand, type Host, type HostContext } from './host.ts';

/** A first run that is shorter is not shown with its session: its end is reported in the same batch. */
const FIRST_SHOWN_AFTER = 5;
/** A later run of a napping worker that is shorter is not shown either: two reports for nothing. */
const LATER_SHOWN_AFTER = 100;

const TOO_MANY_CONNECTIONS = '53300';

export class SqlHost implements Host {
  readonly order: StartOrder;
  readonly ended: Promise<Exit>;
  readonly #context: HostContext;
  readonly #pool: Pool;
  readonly #isOneOfMany: boolean;
  #settings: SettingValue[];
  #naptime: number | null;
  #command: string;
  /** After SIGTERM. */
  #isStopping = false;
  /** Set by SIGHUP, SIGUSR1 and SIGTERM: the nap is over. */
  readonly #latch = new Alarm();
  /** Of the run in progress. */
  #limit: Limit | undefined;
  #started = false;
  /** Shows the session of a run that goes on. */
  #showTimer: NodeJS.Timeout | undefined;
  #isShown = false;

  /** `isOneOfMany`: it comes from the backlog, which there is only where runs are short. */
  constructor(order: StartOrder, isOneOfMany: boolean, pool: Pool, context: HostContext) {
    this.order = order;
    this.#isOneOfMany = isOneOfMany;
    this.#context = context;
    this.#pool = pool;
    this.#settings = order.settings;
    this.#naptime = order.naptime;
    this.#command = order.command ?? '';
    this.ended = this.#main().catch((error: unknown) => ({ exit_code: 1, error: describeError(error) }));
  }

  signal({ signal, settings, naptime, command }: Partial<SignalOrder> & Pick<SignalOrder, 'signal'>): void {
    switch (signal) {
      case 'SIGHUP':
        this.#settings = settings ?? this.#settings;
        if (this.#naptime !== null && naptime) this.#naptime = naptime;
        this.#command = command ?? this.#command;
        this.#latch.ring();
        return;
      case 'SIGUSR1':
        this.#latch.ring();
        return;
      case 'SIGINT':
        this.#limit?.cancel();
        return;
      case 'SIGTERM':
        this.#isStopping = true;
        this.#latch.ring();
        this.#limit?.end();
        return;
      default:
        signal satisfies never;
    }
  }

  async #main(): Promise<Exit> {
    for (;;) {
      const session = await this.#acquire();
      if (!session) return this.#terminated();
      const exit = await this.#runOnce(session);
      if (exit.exit_code !== 0 || this.#naptime === null) return exit;
      await this.#latch.wait(this.#naptime * 1000);
      if (this.#isStopping) return this.#terminated();
    }
  }

  /** How an attempt ends that was terminated before its first run, or between two. */
  #terminated(): Exit {
    return { exit_code: 0, error: administratorCommand(this.order.name), unbegun: !this.#started };
  }

  /** A session, or none if the worker is to end. A server that is away for now is waited for: nothing has begun yet. */
  async #acquire(): Promise<Session | undefined> {
    const { clock, observe } = this.#context;
    const { handle, name } = this.order;
    for (let attempt = 0; !this.#isStopping; attempt += 1) {
      try {
        const session = await this.#pool.acquire(this.order.database, {
          isUrgent: this.#naptime === null,
          opening: { settings: this.#settings, names: lastingNames(this.order) },
        });
        if (!this.#isStopping) return session;
        void this.#pool.release(session);
      } catch (error) {
        if (!isPassing(error)) throw error;
        const refusal = describeError(error);
        // Of a server that is away the node says so itself.
        if (attempt === 0 && refusal.code === TOO_MANY_CONNECTIONS)
          observe({ kind: 'session_awaited', handle, name, error: refusal });
        await this.#latch.wait(backOff(attempt, clock));
      }
    }
    return undefined;
  }

  async #runOnce(session: Session): Promise<Exit> {
    const { clock, server, grace } = this.#context;
    const { backend } = session;
    const startedAt = clock.monotonic();
    const run = this.order.mode === 'atomic' ? runAtomic : runSession;
    // What is to be done about it is done while it is under way.
    const ended = run(session, {
      order: this.order,
      command: this.#command,
      settings: this.#settings,
      onNotice: this.#onNotice,
      final: this.#naptime === null,
      isOneOfMany: this.#isOneOfMany,
    });
    this.#show(backend);
    const limit = new Limit(server, { backend, ended, grace }, this.order.timeout);
    this.#limit = limit;
    if (this.#isStopping) limit.end();
    const result = await ended;
    const ranMs = clock.monotonic() - startedAt;
    this.#limit = undefined;
    const sent = limit.lift();
    if (sent) await sent;
    const exit = this.#exitOf(result, limit.expired, { session_pid: backend.pid, ran_ms: ranMs });
    // An error has rolled back, and its backend is idle or gone, before anybody hears of it.
    const released = this.#pool.release(session);
    if (result.error) await released;
    this.#hide();
    return exit;
  }

  /** Reports the session that the process holds, if it holds it for long. */
  #show({ pid, backendStart }: Backend): void {
    const { events, observe } = this.#context;
    const { handle, run_id, name } = this.order;
    const isFirst = !this.#started;
    this.#started = true;
    if (isFirst) observe({ kind: 'worker_started', handle, name, pid });
    // A one-shot may be over before it is worth a report of its own; a worker that naps goes on.
    if (isFirst && this.#naptime !== null) events.push({ kind: 'started', handle, run_id });
    this.#isShown = false;
    this.#showTimer = setTimeout(
      () => {
        this.#isShown = true;
        if (isFirst && this.#naptime === null) events.push({ kind: 'started', handle, run_id });
        events.push({ kind: 'session', handle, run_id, pid, backend_start: backendStart });
      },
      isFirst ? FIRST_SHOWN_AFTER : LATER_SHOWN_AFTER,
    );
  }

  #hide(): void {
    clearTimeout(this.#showTimer);
    if (!this.#isShown || this.#naptime === null) return;
    const { handle, run_id } = this.order;
    this.#context.events.push({ kind: 'session', handle, run_id, pid: null, backend_start: null });
  }

  #exitOf(
    { error, commandTag, rows, undecided }: RunResult,
    expired: boolean,
    ran: Pick<Exit, 'session_pid' | 'ran_ms'>,
  ): Exit {
    const result = {
      command_tag: commandTag,
      rows,
      undecided,
      session_pid: ran.session_pid,
      // An attempt of a worker that naps is all its runs.
      ran_ms: this.#naptime === null ? ran.ran_ms : undefined,
      interrupted: this.#isStopping ? undefined : false,
    };
    if (!error) return { exit_code: 0, ...result, done: this.#naptime === null };
    if (expired) {
      const message = `background worker "${this.order.name}" was ended by its timeout of ${this.order.timeout} s`;
      return { exit_code: 1, ...result, expired: true, error: { severity: 'ERROR', code: '57014', message } };
    }
    if (this.#isStopping) return { exit_code: 1, ...result, error: administratorCommand(this.order.name) };
    return { exit_code: 1, ...result, error: describeError(error) };
  }

  readonly #onNotice: OnNotice = (notice) => {
    if (isForServerLog(notice)) return;
    const { severity, message, code, detail, hint, where } = notice;
    const error = {
      severity: 'LOG',
      message,
      code: code === '00000' ? undefined : code,
      detail,
      hint,
      context: where,
    };
    this.#context.observe({
      kind: 'worker_said',
      severity: severity as Severity,
      handle: this.order.handle,
      name: this.order.name,
      error,
    });
  };
}
