/**
 * One shape for every error that a user can cause: SQLSTATE, primary message, and DETAIL or HINT where either helps.
 * BgwError has the field names of pg's DatabaseError, so that an error of the server and one of ours are handled alike.
 * PostgreSQL counterpart: ereport().  docs/errors.md lists the codes and a test holds the two equal.
 */

/**
 * The SQLSTATEs that PostgreSQL has no code for. Class WK, grouped by hundreds: WK0xx node and lease, WK1xx worker and
 * library, WK2xx identity, WK3xx schema version, WK9xx cannot happen. A number is never reused.
 */
export const OWN_SQLSTATES = {
  WK001: 'stale epoch: another node has taken this node over',
  WK002: 'stale run: another node has taken the run over',
  WK101: 'the name of a worker or of a setting, or the key of a worker set, is ambiguous',
  WK111: 'a module does not export the library that it is named for',
  WK112: 'the function of a worker is not exported by its library',
  WK113: 'the init of a library did not come to its end',
  WK201: 'no node can log in as the owner of the worker',
  WK202: 'a session cannot be seen, so it cannot be registered',
  WK203: 'there is a connection pooler between the controller and the server',
  WK301: 'the schema in the database is newer than this program',
  WK302: 'the migration history differs from the files of this program',
  WK303: 'the schema is not installed in the database',
  WK304: 'the schema in the database is older than this program',
} as const;

export interface BgwErrorFields {
  /** ERROR, or FATAL: thrown in the main loop of a worker, it ends the worker with exit code 1. Default ERROR. */
  severity?: string | undefined;
  /** Lower case, no final stop, one line. */
  message: string;
  /** Facts and numbers, as sentences. */
  detail?: string | undefined;
  /** What to do, as sentences. */
  hint?: string | undefined;
  /** Where it happened: PostgreSQL's CONTEXT. */
  where?: string | undefined;
  cause?: unknown;
}

/** An error with an SQLSTATE. `code` is one of PostgreSQL's own five-character codes or a key of OWN_SQLSTATES. */
export class BgwError extends Error {
  override readonly name = 'BgwError';
  readonly severity: string;
  readonly code: string;
  readonly detail: string | undefined;
  readonly hint: string | undefined;
  readonly where: string | undefined;

  constructor(code: string, { severity = 'ERROR', message, detail, hint, where, cause }: BgwErrorFields) {
    super(message, cause === undefined ? undefined : { cause });
    this.severity = severity;
    this.code = code;
    this.detail = detail;
    this.hint = hint;
    this.where = where;
  }
}

export interface ErrorDescription {
  severity: string;
  code?: string | undefined;
  message: string;
  detail?: string | undefined;
  hint?: string | undefined;
  context?: string | undefined;
}

/** Where the server writes what log_statement, log_duration, log_*_stats, debug_print_* and auto_explain ask for. */
const WRITES_SERVER_LOG =
  /^(?:exec_(?:simple_query|(?:parse|bind|execute)_message)|explain_ExecutorEnd|ShowUsage|elog_node_display)$/;

/** Whether a notice is one of those that go to a client whose client_min_messages is log: they hold SQL, and nobody has said them. */
export function isForServerLog({ routine }: { routine?: string | undefined }): boolean {
  return routine !== undefined && WRITES_SERVER_LOG.test(routine);
}

/** Says what any thrown value, or any notice of the server, is in PostgreSQL's terms. Never throws. */
export function describeError(error: unknown): ErrorDescription {
  if (typeof error === 'string' && error !== '') return { severity: 'ERROR', message: error };
  if (typeof error !== 'object' || error === null) {
    return {
      severity: 'ERROR',
      message: `what was thrown is not an error: ${typeof error === 'string' ? '""' : String(error)}`,
    };
  }
  try {
    return describeObject(error);
  } catch {
    // A getter of it throws.
    return { severity: 'ERROR', message: 'what was thrown is not an error, and cannot be read' };
  }
}

function describeObject(error: object): ErrorDescription {
  const fields = error as Record<string, unknown>;
  return {
    severity: text(fields['severity']) ?? 'ERROR',
    code: text(fields['code']),
    message: text(fields['message']) ?? messageOfParts(error) ?? text(fields['name']) ?? 'unrecognized error',
    detail: text(fields['detail']),
    hint: text(fields['hint']),
    context: text(fields['where']),
  };
}

/** The SQLSTATE of an error: a code of the operating system about a connection is 08006, any other code is none. */
export function sqlstateOf({ code }: ErrorDescription): string | undefined {
  if (code === undefined) return undefined;
  if (/^(ECONN|EPIPE|EHOST|ENET|ETIMEDOUT|EAI_|ENOTFOUND)/.test(code)) return '08006';
  return /^[0-9A-Z]{5}$/.test(code) ? code : undefined;
}

/** Codes of Node.js for a certificate that it does not trust. */
const CERTIFICATE_REFUSED = /CERT|UNABLE_TO_VERIFY/;

/** Why there is no connection, with what to do where Node.js and node-postgres do not say it. */
export function explainConnection(error: unknown): unknown {
  const { code = '', message } = describeError(error);
  if (message.startsWith('SASL:') && message.includes('client password must be')) {
    return new BgwError('28P01', {
      message: 'no password supplied',
      hint: 'Give it in PGPASSWORD, in the password file, or in the URL.',
      cause: error,
    });
  }
  if (!CERTIFICATE_REFUSED.test(code) && message !== 'The server does not support SSL connections') return error;
  return new BgwError('28000', {
    message,
    hint: 'TLS to another host is verify-full unless sslmode says otherwise; sslrootcert names the certificate to trust.',
    cause: error,
  });
}

/** Whether the server may be had later: it is starting, full, or cannot be reached. */
export function isPassing(error: unknown): boolean {
  const { code } = describeError(error);
  return code === undefined || /^(57P0[123]|53300|WK202|E[A-Z]+|08...)$/.test(code);
}

/** psql's way of printing an error: one line a field, without a final newline. */
export function formatError(error: unknown): string {
  const { severity, message, detail, hint, context } = describeError(error);
  const lines = [`${severity}:  ${message}`];
  if (detail !== undefined) lines.push(`DETAIL:  ${detail}`);
  if (hint !== undefined) lines.push(`HINT:  ${hint}`);
  if (context !== undefined) lines.push(`CONTEXT:  ${context}`);
  return lines.join('\n');
}

/** A refused connection to a name with two addresses is an AggregateError without a message of its own. */
function messageOfParts(error: object): string | undefined {
  if (!(error instanceof AggregateError)) return undefined;
  const messages = error.errors.map((part) => describeError(part).message);
  return messages.length > 0 ? [...new Set(messages)].join('; ') : undefined;
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** What to say where the schema is missing. */
export function notInstalled(): BgwError {
  return new BgwError('WK303', { message: 'pg-bgworker is not installed in this database', hint: 'Run: bgw migrate' });
}
