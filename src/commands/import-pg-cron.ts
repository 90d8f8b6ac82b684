/**
 * `bgw import pg_cron`: copies the jobs of a real pg_cron into schema cron of this database.
 *
 * All or nothing, in one transaction.  cron.entry remembers of each job where it came from and what it was there: run
 * again, this changes here what was changed there since, and nothing else.  It never switches a job off, since that is
 * how a user makes the real pg_cron stop running what runs here now.
 */
import type pg from 'pg';
import { describeTarget } from '../connection.ts';
import { BgwError, describeError } from '../errors.ts';
import { withGuardedSession } from './connect.ts';

export interface ImportOptions {
  /** The database that has schema cron, by `bgw migrate --with-cron`. */
  connection: pg.ClientConfig;
  /** The database that has pg_cron. Absent: the one that the same server's cron.database_name names. */
  from?: pg.ClientConfig | undefined;
  /** Import the others if some jobs cannot be. */
  skipRefused?: boolean;
  /** Told one line for each job that is added, changed or refused, and the numbers. */
  say: (line: string) => void;
}

interface Job {
  jobid: string;
  schedule: string;
  command: string;
  database: string;
  username: string;
  active: boolean;
  jobname: string | null;
}

interface SourceJob extends Job {
  /** Whether pg_cron runs it on its own server. */
  is_local: boolean;
}

interface Source {
  /** The same however it was connected to. */
  id: string;
  jobs: SourceJob[];
}

interface KnownJob extends Job {
  imported_from: string | null;
  /** What it was at the source when it was imported last; active: whether it was at any import. */
  imported_job: Job | null;
}

const DEFINITION = ['schedule', 'command', 'database', 'username', 'jobname'] as const;

/** Throws 42704 if there is no pg_cron, WK303 if there is no schema cron, 55000 if a job is refused; then nothing changed. */
export async function importPgCron({ connection, from, skipRefused = false, say }: ImportOptions): Promise<void> {
  await withGuardedSession({ ...connection, application_name: 'bgw import' }, async (client) => {
    await checkInstalled(client);
    const target = from ?? { ...connection, database: await databaseOfPgCron(client) };
    const source = await withGuardedSession({ ...target, application_name: 'bgw import' }, (session) =>
      readSource(session, target, say),
    );
    const total = source.jobs.length;
    await client.query('BEGIN');
    try {
      const { done, refused } = await writeJobs(client, source);
      if (refused.length > 0 && !skipRefused) throw refusal(refused, total);
      await client.query('COMMIT');
      for (const line of [...done, ...refused.map((reason) => `refused ${reason}`)]) say(line);
      say(`${total} jobs: ${done.length} imported, ${refused.length} refused, the others are here already`);
    } catch (error) {
      await client.query('ROLLBACK').catch(() => undefined);
      throw error;
    }
  });
}

async function checkInstalled(client: pg.ClientBase): Promise<void> {
  const { rows } = await client.query<{ ours: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
                    WHERE nspname = 'cron' AND relname = 'sql_layer') AS ours`,
  );
  if (rows[0]?.ours) return;
  throw new BgwError('WK303', {
    message: 'schema "cron" of pg-bgworker is not installed in this database',
    hint: 'Run: bgw migrate --with-cron',
  });
}

async function databaseOfPgCron(client: pg.ClientBase): Promise<string> {
  const { rows } = await client.query<{ name: string | null }>(
    `SELECT pg_catalog.current_setting('cron.database_name', true) AS name`,
  );
  if (rows[0]?.name) return rows[0].name;
  throw new BgwError('42704', {
    message: 'this server does not run pg_cron',
    hint: 'Name the database that has it with --from.',
  });
}

/** Older versions have neither jobname nor, before 1.0, active. */
async function readSource(
  client: pg.ClientBase,
  target: pg.ClientConfig,
  say: (line: string) => void,
): Promise<Source> {
  const { rows } = await client.query<{ id: string; extension: boolean; timezone: string | null }>(
    `SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()) || '/' || pg_database.oid AS id,
            EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_cron') AS extension,
            pg_catalog.current_setting('cron.timezone', true) AS timezone
     FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()`,
  );
  const [{ id, extension, timezone } = { id: '', extension: false, timezone: null }] = rows;
  if (!extension) {
    throw new BgwError('42704', {
      message: `extension "pg_cron" is not installed in ${describeTarget(target)}`,
      hint: 'Name the database that has it with --from.',
    });
  }
  if (timezone && !/^(GMT|UTC)$/i.test(timezone))
    say(`warning: pg_cron has cron.timezone = ${timezone}; the times of schema cron are GMT`);
  const jobs = await client.query<SourceJob>(
    `SELECT job.jobid::text, job.schedule, job.command, job.database, job.username,
            coalesce((pg_catalog.to_jsonb(job) ->> 'active')::boolean, true) AS active, pg_catalog.to_jsonb(job) ->> 'jobname' AS jobname,
            (job.nodename IN ('', 'localhost', '127.0.0.1', '::1') OR job.nodename LIKE '/%')
              AND job.nodeport = pg_catalog.current_setting('port')::integer AS is_local
     FROM cron.job ORDER BY job.jobid`,
  );
  return { id, jobs: jobs.rows };
}

/** Returns what was done, one line a job, and why which jobs are refused. */
async function writeJobs(client: pg.ClientBase, source: Source): Promise<{ done: string[]; refused: string[] }> {
  // Two imports at once would not see each other's jobs.
  await client.query(`SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('bgw import pg_cron'))`);
  const { rows: known } = await client.query<KnownJob>(
    `SELECT job.jobid::text, job.schedule, job.command, job.database, job.username, job.active, job.jobname,
            entry.imported_from, entry.imported_job
     FROM cron.job JOIN cron.entry ON entry.jobid = job.jobid ORDER BY entry.jobid`,
  );
  const done: string[] = [];
  const refused: string[] = [];
  for (const job of source.jobs) {
    await client.query('SAVEPOINT job');
    try {
      const outcome = await writeJob(client, job, source, known);
      if (outcome !== 'unchanged') done.push(`${outcome} ${describe(job)}`);
    } catch (error) {
      await client.query('ROLLBACK TO job');
      const { message, detail } = describeError(error);
      refused.push(`${describe(job)}: ${message}${detail === undefined ? '' : ` (${detail})`}`);
    }
  }
  return { done, refused };
}

async function writeJob(
  client: pg.ClientBase,
  job: SourceJob,
  source: Source,
  known: KnownJob[],
): Promise<'added' | 'changed' | 'unchanged'> {
  if (!job.is_local) {
    throw new BgwError('0A000', { message: 'pg_cron runs it on another server' });
  }
  const match = takeKnown(job, source, known);
  if (match === undefined) {
    await remember(client, await addJob(client, job), source, job);
    return 'added';
  }
  // Of a job that was not imported, what differs is brought, but it stays active or not.
  const was = match.imported_job ?? { ...match, active: true };
  const isChanged = await changeJob(client, match, merge(match, was, job));
  await remember(client, match.jobid, source, { ...job, active: job.active || was.active });
  return isChanged ? 'changed' : 'unchanged';
}

/**
 * The job here that stands for one there, if there is one: by its number there; else, as it was made here, or came from
 * a job that is gone there, by its name and user, or without a name by all that it is.  Two that are alike stay two.
 */
function takeKnown(job: SourceJob, { id, jobs }: Source, known: KnownJob[]): KnownJob | undefined {
  const isFree = (other: KnownJob): boolean =>
    other.imported_from === null ||
    (other.imported_from === id && !jobs.some(({ jobid }) => jobid === other.imported_job?.jobid));
  const isLike = (other: KnownJob): boolean =>
    job.jobname === null ? isSame(job, other) : other.jobname === job.jobname && other.username === job.username;
  let index = known.findIndex((other) => other.imported_from === id && other.imported_job?.jobid === job.jobid);
  if (index === -1) index = known.findIndex((other) => isLike(other) && isFree(other));
  return index === -1 ? undefined : known.splice(index, 1)[0];
}

/** What the job here becomes: what was changed there since it was imported is changed, what was changed here stays. */
function merge(here: Job, was: Job, there: Job): Job {
  const changes = DEFINITION.filter((field) => there[field] !== was[field]).map((field) => [field, there[field]]);
  return { ...here, ...Object.fromEntries(changes), active: here.active || (there.active && !was.active) };
}

async function addJob(client: pg.ClientBase, job: Job): Promise<string> {
  const { schedule, command, database, username, active, jobname } = job;
  const { rows } = await client.query<{ jobid: string }>(
    `INSERT INTO cron.job (schedule, command, database, username, active, jobname) VALUES ($1, $2, $3, $4, $5, $6)
     RETURNING jobid::text`,
    [schedule, command, database, username, active, jobname],
  );
  return rows[0]?.jobid ?? '';
}

/** Returns whether there was something to change. */
async function changeJob(client: pg.ClientBase, from: Job, to: Job): Promise<boolean> {
  if (isSame(from, to) && from.active === to.active) return false;
  const rename = 'SELECT cron.rename_job($1, $2)';
  // Without a name meanwhile: the old user may have a job of the new name, and the new one of the old.
  if (from.jobname !== to.jobname) await client.query(rename, [from.jobid, null]);
  await client.query(
    'UPDATE cron.job SET schedule = $1, command = $2, database = $3, username = $4, active = $5 WHERE jobid = $6',
    [to.schedule, to.command, to.database, to.username, to.active, from.jobid],
  );
  if (from.jobname !== to.jobname) await client.query(rename, [from.jobid, to.jobname]);
  return true;
}

async function remember(client: pg.ClientBase, id: string, source: Source, job: Job): Promise<void> {
  const { jobid, schedule, command, database, username, active, jobname } = job;
  await client.query(
    `UPDATE cron.entry SET imported_from = $2, imported_job = $3
     WHERE jobid = $1 AND (imported_from, imported_job) IS DISTINCT FROM ($2, $3::jsonb)`,
    [id, source.id, { jobid, schedule, command, database, username, active, jobname }],
  );
}

/** Whether two jobs do the same; one of them may be inactive. */
function isSame(one: Job, other: Job): boolean {
  return DEFINITION.every((field) => one[field] === other[field]);
}

function describe({ jobid, jobname, username }: Job): string {
  return `job ${jobid}${jobname === null ? '' : ` "${jobname}"`} of role "${username}"`;
}

function refusal(refused: string[], total: number): BgwError {
  return new BgwError('55000', {
    message: `could not import ${refused.length} of ${total} jobs, so none was imported`,
    detail: refused.join('\n'),
    hint: 'Give --skip-refused to import the others.',
  });
}
