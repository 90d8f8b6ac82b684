/**
 * Observations -> log lines: the same text for pino and for bgw.log, constant message + fields.
 * No line holds a password, a connection string or the SQL of a worker (HARDENING A8); pino escapes line breaks (I14).
 */
import type { Logger } from 'pino';
import { type ErrorDescription, sqlstateOf } from './errors.ts';
import type { Observation, Observe, Severity } from './observation.ts';

export interface LogLine {
  severity: Severity;
  message: string;
  /** For bgw.log: whose line it is; none for what is about the node. */
  handle?: string | undefined;
  name?: string | undefined;
  sqlstate?: string | undefined;
  detail?: string | undefined;
  hint?: string | undefined;
  context?: string | undefined;
}

/** The line that an observation is worth, if any. */
export function lineOf(observation: Observation): LogLine | undefined {
  switch (observation.kind) {
    case 'node_joined':
      return line('LOG', `node "${observation.node}" joined at epoch ${observation.epoch}`);
    case 'node_resumed':
      return line('LOG', `node "${observation.node}" is connected again`);
    case 'node_fenced':
      return caused('WARNING', `node "${observation.node}" was taken over by another one`, observation.error);
    case 'node_left':
      return line('LOG', `node "${observation.node}" left`);
    case 'lease_ended':
      return line('WARNING', `lease of node "${observation.node}" ended: its workers are stopped`);
    case 'standby_entered':
      return line('LOG', `node "${observation.node}" runs on a standby: read-only, and only what may start there`);
    case 'standby_promoted':
      return line('LOG', `the server of node "${observation.node}" was promoted`);
    case 'server_awaited':
      return caused('WARNING', 'the server cannot be reached: waiting for it', observation.error);
    case 'connection_lost':
      return caused('WARNING', 'connection to the server was lost', observation.error);
    case 'doorbell_lost':
      return caused('WARNING', 'notifications do not arrive: polling every two seconds', observation.error);
    case 'doorbell_heard':
      return line('LOG', 'notifications arrive');
    case 'library_loaded':
      return line('LOG', `loaded library "${observation.library}"`);
    case 'library_failed':
      return line(
        'ERROR',
        `could not load library "${observation.library}": ${observation.error.message}`,
        observation.error,
      );
    case 'worker_signalled':
    case 'worker_started':
    case 'took_orders':
      return undefined;
    case 'worker_refused':
      return { ...line('WARNING', observation.error.message, observation.error), ...subject(observation) };
    case 'worker_exited':
      return exitLine(observation);
    case 'session_awaited': {
      const { name, error } = observation;
      return {
        ...line('WARNING', `background worker "${name}" waits for a session: ${error.message}`, error),
        ...subject(observation),
      };
    }
    case 'worker_killed':
      return {
        ...line('WARNING', `background worker "${observation.name}" ${observation.reason}`),
        ...subject(observation),
      };
    case 'worker_said':
      return { ...line(observation.severity, observation.error.message, observation.error), ...subject(observation) };
    case 'unexpected_error':
      return caused('ERROR', `could not finish: ${observation.during}`, observation.error);
    default:
      return observation satisfies never;
  }
}

/** Writes observations to pino: fields by the names of bgw.log. */
export function logTo(logger: Logger): Observe {
  return (observation) => {
    const found = lineOf(observation);
    if (!found) {
      logger.debug(observation, observation.kind);
      return;
    }
    const { message, ...fields } = found;
    const isError = found.severity === 'ERROR' || found.severity === 'FATAL' || found.severity === 'PANIC';
    logger[isError ? 'error' : found.severity === 'WARNING' ? 'warn' : found.severity === 'DEBUG' ? 'debug' : 'info'](
      fields,
      message,
    );
  };
}

function exitLine(exit: Extract<Observation, { kind: 'worker_exited' }>): LogLine | undefined {
  if (exit.exitCode === 0 || !exit.error) return undefined;
  return { ...line('ERROR', exit.error.message, exit.error), ...subject(exit) };
}

function subject({ handle, name }: { handle: string; name: string }): Pick<LogLine, 'handle' | 'name'> {
  return { handle, name };
}

/** A message that does not say which error it comes from: DETAIL does. */
function caused(severity: Severity, message: string, error: ErrorDescription): LogLine {
  return { ...line(severity, message, error), detail: [error.message, error.detail].filter(Boolean).join('\n') };
}

function line(severity: Severity, message: string, error?: ErrorDescription): LogLine {
  return {
    severity,
    message,
    sqlstate: error && sqlstateOf(error),
    detail: error?.detail,
    hint: error?.hint,
    context: error?.context,
  };
}
