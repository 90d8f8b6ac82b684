/**
 * Every process that runs on this node: obeys orders, and reports each end exactly once.
 * PostgreSQL counterpart: BackgroundWorkerList in the postmaster.
 */
import type { Clock } from '../clock.ts';
import type { EventQueue } from '../events.ts';
import type { Observe } from '../observation.ts';
import type { Claim, Exit, SignalOrder, StartOrder } from '../orders.ts';
import { Backlog, type Stock } from './backlog.ts';
import type { Host } from './host.ts';

export interface RosterOptions {
  clock: Clock;
  events: EventQueue;
  observe: Observe;
  maxWorkerProcesses: number;
  /** Called when nothing is left of what was claimed ahead. */
  onDrained: () => void;
  /** Makes the host for an order: a SQL worker or a process. `isOneOfMany`: it had to wait for a slot. Throws what then ends the attempt. */
  createHost: (order: StartOrder, isOneOfMany: boolean) => Host;
}

export class Roster {
  readonly #options: RosterOptions;
  /** By run id: a restarted process is another attempt. */
  readonly #hosts = new Map<string, Host>();
  readonly #backlog: Backlog;
  /** Slots that are taken. */
  #taken = 0;
  #interrupted = false;
  #silent = false;

  constructor(options: RosterOptions) {
    this.#options = options;
    this.#backlog = new Backlog(options.clock, ({ handle, run_id }) => {
      if (!this.#silent) options.events.push({ kind: 'returned', handle, run_id });
    });
  }

  /** How many more processes that take a slot can start now, or as soon as slots are free again. */
  room(): number {
    return Math.max(0, this.#options.maxWorkerProcesses - this.#taken) + this.#backlog.allowance();
  }

  /** What was claimed ahead and waits for a slot. */
  stock(): Stock {
    return this.#backlog.stock();
  }

  /** Run ids that are running here, or about to. */
  runIds(): string[] {
    return [...this.#hosts.keys(), ...this.#backlog.runIds()];
  }

  obey(order: StartOrder | SignalOrder): void {
    if (order.kind === 'signal') this.#signal(order);
    else if (takesSlot(order) && this.#taken >= this.#options.maxWorkerProcesses) this.#backlog.push(order);
    else this.#start(order, false);
  }

  /** What runs without a claim goes by the names of its claim from now on, if it gets one; else it is not to run here. */
  adopt(order: StartOrder, claim: Claim | undefined): void {
    const host = this.#hosts.get(order.run_id);
    if (!host) return;
    if (claim) {
      this.#hosts.delete(order.run_id);
      Object.assign(order, claim);
      this.#hosts.set(order.run_id, host);
    } else {
      const { handle, name } = order;
      const reason = 'is ended here: another node runs it, or it is not to run';
      this.#options.observe({ kind: 'worker_killed', handle, name, reason });
      host.signal({ signal: 'SIGTERM' });
    }
  }

  /** Ends every run but these. */
  keep(runIds: readonly string[]): void {
    this.#backlog.giveBackIf((order) => !runIds.includes(order.run_id));
    for (const [runId, host] of this.#hosts) if (!runIds.includes(runId)) host.signal({ signal: 'SIGTERM' });
  }

  /** Ends every process: SIGTERM, then by force after the grace. Resolves when all are gone. */
  async stopAll({ silent }: { silent: boolean }): Promise<void> {
    this.#interrupted = true;
    this.#silent = silent;
    this.#backlog.giveBackIf(() => true);
    const hosts = [...this.#hosts.values()];
    for (const host of hosts) host.signal({ signal: 'SIGTERM' });
    await Promise.all(hosts.map((host) => host.ended));
    // The listeners below have run by now, and the roster can be used again.
    this.#interrupted = false;
    this.#silent = false;
  }

  #start(order: StartOrder, isOneOfMany: boolean): void {
    const host = this.#options.createHost(order, isOneOfMany);
    this.#hosts.set(order.run_id, host);
    if (takesSlot(order)) this.#taken += 1;
    void host.ended.then((exit) => {
      this.#hosts.delete(order.run_id);
      this.#report(order, exit);
      if (takesSlot(order)) this.#freeSlot();
    });
  }

  #freeSlot(): void {
    this.#taken -= 1;
    this.#backlog.countEnd();
    const next = this.#backlog.shift();
    if (!next) return;
    this.#start(next, true);
    if (this.#backlog.stock() === 'none') this.#options.onDrained();
  }

  #report({ handle, run_id, name }: StartOrder, exit: Exit): void {
    if (this.#silent) return;
    const { events, observe } = this.#options;
    if (this.#interrupted && exit.unbegun) {
      events.push({ kind: 'returned', handle, run_id });
      return;
    }
    const interrupted = exit.interrupted ?? (this.#interrupted && !exit.done);
    events.push({ kind: 'exited', handle, run_id, ...exit, interrupted });
    observe({ kind: 'worker_exited', handle, name, exitCode: exit.exit_code, error: exit.error });
  }

  #signal(order: SignalOrder): void {
    // One that has not started waits again, for whatever was asked of it: its end, or new settings.
    if (this.#backlog.giveBackIf(({ run_id }) => run_id === order.run_id)) return;
    const host = this.#hosts.get(order.run_id);
    if (!host) return;
    this.#options.observe({
      kind: 'worker_signalled',
      handle: order.handle,
      name: host.order.name,
      signal: order.signal,
    });
    host.signal(order);
  }
}

/** Whether it counts against max_worker_processes: a SQL worker with a nap time costs nothing between two runs. */
function takesSlot({ naptime }: StartOrder): boolean {
  return naptime === null;
}
