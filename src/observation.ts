/**
 * Everything that a controller can report, as one closed union: log.ts turns it into log lines, the report into rows of
 * bgw.log, and tests wait for it.
 */
import type { ErrorDescription } from './errors.ts';

export type Severity = 'DEBUG' | 'INFO' | 'NOTICE' | 'WARNING' | 'LOG' | 'ERROR' | 'FATAL' | 'PANIC';

/** The process that an observation is about. */
export interface Subject {
  handle: string;
  name: string;
}

export type Observation =
  | { kind: 'node_joined'; node: string; nodeId: string; epoch: number }
  | { kind: 'node_resumed'; node: string; attempts: number }
  | { kind: 'node_fenced'; node: string; error: ErrorDescription }
  | { kind: 'node_left'; node: string }
  | { kind: 'lease_ended'; node: string }
  | { kind: 'standby_entered'; node: string }
  | { kind: 'standby_promoted'; node: string }
  | { kind: 'server_awaited'; error: ErrorDescription }
  | { kind: 'connection_lost'; error: ErrorDescription }
  | { kind: 'doorbell_lost'; error: ErrorDescription }
  | { kind: 'doorbell_heard' }
  | { kind: 'took_orders'; orders: number }
  | { kind: 'library_loaded'; library: string; workers: number; settings: number }
  | { kind: 'library_failed'; library: string; error: ErrorDescription }
  | ({ kind: 'worker_started'; pid?: number | undefined; osPid?: number | undefined } & Subject)
  | ({ kind: 'worker_refused'; error: ErrorDescription } & Subject)
  | ({ kind: 'session_awaited'; error: ErrorDescription } & Subject)
  | ({ kind: 'worker_signalled'; signal: string } & Subject)
  | ({ kind: 'worker_exited'; exitCode: number | null; error?: ErrorDescription | undefined } & Subject)
  | ({ kind: 'worker_killed'; reason: string } & Subject)
  | ({ kind: 'worker_said'; severity: Severity; error: ErrorDescription } & Subject)
  | { kind: 'unexpected_error'; during: string; error: ErrorDescription };

export type Observe = (observation: Observation) => void;
