/**
 * auth_counter: counts logins that succeeded and failed, by user and database, from the server's own log (csvlog or jsonlog).
 * Counts and position are written in one transaction, so that nothing counts twice whatever ends the worker; the totals are
 * also in shared memory, for other workers of the node: struct "auth_counter", lock "auth_counter".
 * Try: SELECT bgw_launch('auth_counter'); then, after some logins: SELECT * FROM bgw_auth_counter;
 */
import { BgwError, defineLibrary, type Guc, type Spi, type Struct, type Worker } from '../sdk/index.ts';
import { askServer } from './parts/ask-server.ts';
import { CSVLOG, JSONLOG, type LogFormat, type LogRecord } from './parts/server-log.ts';

/** Names of logins that fail are anybody's invention: more of them are counted together. */
const MOST_COUNTERS = 1000;
const OTHERS = '(others)';
/** Bytes that are read at a time, and of the longest record that is looked at. */
const CHUNK = 1 << 20;
const LONGEST_RECORD = 64 << 20;
const NAME_BYTES = 64;

/** The totals in shared memory: counter i is of the names at i * NAME_BYTES, filled up with zeroes. */
const LAYOUT = {
  used: Int32Array,
  usernames: [Uint8Array, MOST_COUNTERS * NAME_BYTES],
  databases: [Uint8Array, MOST_COUNTERS * NAME_BYTES],
  succeeded: [BigInt64Array, MOST_COUNTERS],
  failed: [BigInt64Array, MOST_COUNTERS],
} as const;

interface Counter {
  username: string;
  database: string;
  succeeded: number;
  failed: number;
}

/** A counter as the database returns it: totals. */
interface Total {
  username: string;
  database: string;
  succeeded: string;
  failed: string;
}

interface Position {
  file: string;
  position: number;
}

let naptime: Guc<number>;

export default defineLibrary('auth_counter', (init) => {
  naptime = init.defineIntVariable('auth_counter.naptime', {
    boot: 5,
    min: 1,
    max: 3600,
    unit: 's',
    description: 'Duration between two looks at the log.',
  });
  init.registerWorker({
    name: 'auth_counter',
    function: main,
    flags: ['backend_database_connection', 'shmem_access'],
    restartTime: 10,
    restartTimeMax: 600,
    maxInstances: 1,
  });
});

export async function main(bgw: Worker): Promise<void> {
  const format = await askServer(bgw, (spi) => checkServer(bgw, spi));
  const { struct } = await bgw.shmem.struct('auth_counter', LAYOUT);
  const slots = new Map<string, number>();
  const publish = (totals: readonly Total[]): Promise<void> =>
    bgw.shmem.withLock('auth_counter', 'exclusive', () => totals.forEach((total) => store(struct, slots, total)));
  await publish(await askServer(bgw, async (spi) => (await spi.execute<Total>('SELECT * FROM bgw.auth_count')).rows));
  // An error of the first look, such as a missing right, ends the worker: its last_error says so.
  await look(bgw, format, slots, publish);
  await bgw.mainLoop({ naptime }, () => look(bgw, format, slots, publish));
}

/** Reads what the server has logged since the last look, a chunk and a transaction at a time. */
async function look(
  bgw: Worker,
  format: LogFormat,
  slots: ReadonlyMap<string, number>,
  publish: (totals: readonly Total[]) => Promise<void>,
): Promise<void> {
  for (let size = CHUNK, more = true; more && !bgw.shutdownRequested;) {
    const { totals, read, used } = await askServer(bgw, async (spi) => {
      const from = await findPosition(spi, format);
      const bytes = await readLog(spi, from, size);
      const { records, length } = format.split(bytes);
      const isStuck = length === 0 && bytes.length >= LONGEST_RECORD;
      const counted = count(records, slots);
      const position = from.position + (isStuck ? bytes.length : length);
      return { totals: await save(spi, counted, { ...from, position }), read: bytes.length, used: length };
    });
    await publish(totals);
    more = read > 0 && (used > 0 || read === size);
    // A record longer than the chunk is read again as a whole.
    size = used > 0 || read < size ? CHUNK : Math.min(size * 2, LONGEST_RECORD);
  }
}

/** Where to go on: in the file of the last look, or in the one after it when that has been read to its end and was rotated. */
async function findPosition(spi: Spi, format: LogFormat): Promise<Position> {
  const { rows: files } = await spi.execute<{ file: string; size: string }>(
    `SELECT regexp_replace(pg_catalog.pg_current_logfile($1), '[^/]*$', '') || name AS file, size
     FROM pg_catalog.pg_ls_logdir() WHERE name LIKE '%.' || $2 ORDER BY modification, name`,
    [format.destination, format.extension],
  );
  const { rows } = await spi.execute<{ file: string; position: string }>(
    'SELECT file, position FROM bgw.auth_count_position',
  );
  const newest = files.at(-1);
  if (!newest) throw new BgwError('55000', { message: 'there is no log file of the server' });
  const last = rows[0];
  // The first look counts from now on.
  if (!last) return { file: newest.file, position: Number(newest.size) };
  const index = files.findIndex(({ file }) => file === last.file);
  // Gone: the server keeps no more.  Shorter than it was: its name is used again.
  if (index < 0) return { file: newest.file, position: 0 };
  const position = Number(last.position);
  const size = Number(files[index]?.size);
  if (position > size) return { file: last.file, position: 0 };
  const next = files[index + 1];
  return next && position === size ? { file: next.file, position: 0 } : { file: last.file, position };
}

async function readLog(spi: Spi, { file, position }: Position, size: number): Promise<Buffer> {
  const { rows } = await spi.execute<{ bytes: Buffer | null }>(
    'SELECT pg_catalog.pg_read_binary_file($1, $2, $3, true) AS bytes',
    [file, position, size],
  );
  return rows[0]?.bytes ?? Buffer.alloc(0);
}

async function save(spi: Spi, counted: readonly Counter[], { file, position }: Position): Promise<Total[]> {
  const { rows } = await spi.execute<Total>(
    `INSERT INTO bgw.auth_count AS known (username, database, succeeded, failed, last_success, last_failure)
     SELECT username, database, succeeded, failed, CASE WHEN succeeded > 0 THEN now() END, CASE WHEN failed > 0 THEN now() END
     FROM jsonb_to_recordset($1) AS counted (username text, database text, succeeded bigint, failed bigint)
     ON CONFLICT (username, database) DO UPDATE SET succeeded = known.succeeded + EXCLUDED.succeeded, failed = known.failed + EXCLUDED.failed,
       last_success = coalesce(EXCLUDED.last_success, known.last_success), last_failure = coalesce(EXCLUDED.last_failure, known.last_failure)
     RETURNING username, database, succeeded, failed`,
    [JSON.stringify(counted)],
  );
  await spi.execute(
    `INSERT INTO bgw.auth_count_position AS known (file, position) VALUES ($1, $2)
     ON CONFLICT (id) DO UPDATE SET file = EXCLUDED.file, position = EXCLUDED.position
     WHERE (known.file, known.position) <> (EXCLUDED.file, EXCLUDED.position)`,
    [file, position],
  );
  return rows;
}

/** Sessions that were authorized a moment ago: some are refused after that, for want of the database or of a right. */
const authorized = new Set<string>();
const MOST_AUTHORIZED = 10_000;

function count(records: Iterable<LogRecord>, slots: ReadonlyMap<string, number>): Counter[] {
  const counters = new Map<string, Counter>();
  for (const record of records) {
    const outcome = outcomeOf(record);
    if (!outcome) continue;
    const known = keyOf(record.user, record.database);
    const isRoom = slots.has(known) || counters.has(known) || slots.size + counters.size < MOST_COUNTERS - 1;
    const [username, database] = isRoom ? [record.user, record.database] : [OTHERS, OTHERS];
    const key = keyOf(username, database);
    const counter = counters.get(key) ?? { username, database, succeeded: 0, failed: 0 };
    counter[outcome] += 1;
    if (outcome === 'succeeded') authorized.add(record.session);
    else if (authorized.delete(record.session)) counter.succeeded -= 1;
    counters.set(key, counter);
  }
  for (const session of authorized) if (authorized.size > MOST_AUTHORIZED) authorized.delete(session);
  return [...counters.values()];
}

/** FATAL while a session is set up: the password, pg_hba.conf, no such role or database, no right to connect, too many. */
function outcomeOf({ severity, sqlstate, message }: LogRecord): 'succeeded' | 'failed' | undefined {
  if (message.startsWith('connection authorized:')) return 'succeeded';
  return severity === 'FATAL' && /^(28...|3D000|42501|53300|55000)$/.test(sqlstate) ? 'failed' : undefined;
}

function keyOf(username: string, database: string): string {
  return `${username}\0${database}`;
}

function store(
  struct: Struct<typeof LAYOUT>,
  slots: Map<string, number>,
  { username, database, ...total }: Total,
): void {
  const key = keyOf(username, database);
  const slot = slots.get(key) ?? slots.size;
  if (slot >= MOST_COUNTERS) return;
  slots.set(key, slot);
  struct.usernames.set(nameBytes(username), slot * NAME_BYTES);
  struct.databases.set(nameBytes(database), slot * NAME_BYTES);
  struct.succeeded[slot] = BigInt(total.succeeded);
  struct.failed[slot] = BigInt(total.failed);
  struct.used[0] = slots.size;
}

function nameBytes(name: string): Uint8Array {
  const bytes = new Uint8Array(NAME_BYTES);
  new TextEncoder().encodeInto(name, bytes);
  return bytes;
}

/** What there is to read, and what the server does not log. Errors: 55000 no csvlog and no jsonlog, 42501 a right is missing. */
async function checkServer(bgw: Worker, spi: Spi): Promise<LogFormat> {
  const { rows } = await spi.execute<{ destinations: string; collector: string; connections: string; reads: boolean }>(
    `SELECT current_setting('log_destination') AS destinations, current_setting('logging_collector') AS collector,
            current_setting('log_connections') AS connections,
            has_function_privilege('pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)', 'EXECUTE')
            AND has_function_privilege('pg_catalog.pg_current_logfile(text)', 'EXECUTE')
            AND has_function_privilege('pg_catalog.pg_ls_logdir()', 'EXECUTE') AS reads`,
  );
  const server = rows[0];
  if (!server?.reads) {
    throw new BgwError('42501', {
      message: 'auth_counter may not read the log of the server',
      hint: 'A superuser can GRANT pg_monitor, and EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean), to its owner.',
    });
  }
  const format = [JSONLOG, CSVLOG].find(({ destination }) => server.destinations.includes(destination));
  if (!format || server.collector !== 'on') {
    throw new BgwError('55000', {
      message: 'auth_counter needs a log that it can read',
      detail: `log_destination is ${server.destinations}, logging_collector is ${server.collector}.`,
      hint: 'Set logging_collector to on, and add csvlog or jsonlog to log_destination.',
    });
  }
  if (['off', ''].includes(server.connections)) {
    bgw.ereport('WARNING', 'logins that succeed are not logged by this server', {
      hint: 'Set log_connections to on.  Logins that fail are counted all the same.',
    });
  }
  return format;
}
