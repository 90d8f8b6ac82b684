/**
 * What runs one process (an attempt of a worker) on this node.  Variants: sql-host.ts (a command on pooled sessions)
 * and process-host.ts (a TypeScript function in an operating system process, or in a thread of the shared-memory host).
 */
import type { Clock } from '../clock.ts';
import type { EventQueue } from '../events.ts';
import type { Observe } from '../observation.ts';
import type { Exit, SignalOrder, StartOrder } from '../orders.ts';
import type { Signaller } from '../sessions/cancel.ts';
import type { SessionRegistry } from '../sessions/session.ts';

export interface Host {
  readonly order: StartOrder;
  /** Resolves when the process has ended and its backends are gone. Never rejects. */
  readonly ended: Promise<Exit>;
  signal(order: Pick<SignalOrder, 'signal'> & Partial<SignalOrder>): void;
}

/** What a host asks of the server, through the control session of the node. */
export type WorkerServer = Signaller & SessionRegistry;

export interface HostContext {
  clock: Clock;
  events: EventQueue;
  observe: Observe;
  /** Registers and ends backends. */
  server: WorkerServer;
  /** Milliseconds between SIGTERM and the end by force. */
  grace: number;
  /** Milliseconds that a TypeScript worker has to load its library. */
  startWithin: number;
}

/** The error of an attempt that somebody terminated, in PostgreSQL's words. */
export function administratorCommand(name: string): NonNullable<Exit['error']> {
  return {
    severity: 'FATAL',
    code: '57P01',
    message: `terminating background worker "${name}" due to administrator command`,
  };
}
