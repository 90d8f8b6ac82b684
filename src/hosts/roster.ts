/**
 * Every process that runs on this node: obeys orders, and reports each end exactly once.
 * PostgreSQL counterpart: BackgroundWorkerList in the postmaster.
 */
import type { EventQueue } from '../events.ts';
import type { Observe } from '../observation.ts';
import type { Claim, Exit, SignalOrder, StartOrder } from '../orders.ts';
import type { Host } from './host.ts';

export interface RosterOptions {
  events: EventQueue;
  observe: Observe;
  maxWorkerProcesses: number;
  /** Makes the host for an order: a SQL worker or a process. Throws what then ends the attempt. */
  createHost: (order: StartOrder) => Host;
}

export class Roster {
  readonly #options: RosterOptions;
  /** By run id: a restarted process is another attempt. */
  readonly #hosts = new Map<string, Host>();
  #interrupted = false;
  #silent = false;

  constructor(options: RosterOptions) {
    this.#options = options;
  }

  /** How many more processes that take a slot can start now. */
  room(): number {
    const used = [...this.#hosts.values()].filter((host) => host.takesSlot).length;
    return Math.max(0, this.#options.maxWorkerProcesses - used);
  }

  /** Run ids that are running here. */
  runIds(): string[] {
    return [...this.#hosts.keys()];
  }

  obey(order: StartOrder | SignalOrder): void {
    if (order.kind === 'start') this.#start(order);
    else this.#signal(order);
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
    for (const [runId, host] of this.#hosts) if (!runIds.includes(runId)) host.signal({ signal: 'SIGTERM' });
  }

  /** Ends every process: SIGTERM, then by force after the grace. Resolves when all are gone. */
  async stopAll({ silent }: { silent: boolean }): Promise<void> {
    this.#interrupted = true;
    this.#silent = silent;
    const hosts = [...this.#hosts.values()];
    for (const host of hosts) host.signal({ signal: 'SIGTERM' });
    await Promise.all(hosts.map((host) => host.ended));
    // The listeners below have run by now, and the roster can be used again.
    this.#interrupted = false;
    this.#silent = false;
  }

  #start(order: StartOrder): void {
    const host = this.#options.createHost(order);
    this.#hosts.set(order.run_id, host);
    void host.ended.then((exit) => {
      this.#hosts.delete(order.run_id);
      this.#report(order, exit);
    });
  }

  #report({ handle, run_id, name }: StartOrder, exit: Exit): void {
    if (this.#silent) return;
    const { events, observe } = this.#options;
    events.push({ kind: 'exited', handle, run_id, ...exit, interrupted: this.#interrupted && !exit.done });
    observe({ kind: 'worker_exited', handle, name, exitCode: exit.exit_code, error: exit.error });
  }

  #signal(order: SignalOrder): void {
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
