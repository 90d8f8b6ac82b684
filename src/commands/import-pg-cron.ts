/**
 * `bgw import pg_cron`: copies the jobs of a real pg_cron into schema cron of this database.
 *
 * All or nothing, in one transaction.  A job is known again by its name and user, one without a name by all that it is:
 * run twice it changes nothing, and a job that was changed at its source is changed here.
 */
import type pg from 'pg';
import { describeTarget } from '../connection.ts';
import { BgwError, describeError } from '../errors.ts';
import { withSession } from './connect.ts';

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

/** Throws 42704 if there is no pg_cron, WK303 if there is no schema cron, 55000 if a job is refused; then nothing changed. */
export async function importPgCron({ connection, from, skipRefused = false, say }: ImportOptions): Promise<void> {
  await withSession({ ...connection, application_name: 'bgw import' }, async (client) => {
    await checkInstalled(client);
    const source = from ?? { ...connection, database: await databaseOfPgCron(client) };
    const jobs = await withSession({ ...source, application_name: 'bgw import' }, (session) =>
      readSource(session, source, say),
    );
    await client.query('BEGIN');
    try {
      const { done, refused } = await writeJobs(client, jobs);
      if (refused.length > 0 && !skipRefused) throw refusal(refused, jobs.length);
      await client.query('COMMIT');
      for (const line of [...done, ...refused.map((reason) => `refused ${reason}`)]) say(line);
      say(`${jobs.length} jobs: ${done.length} imported, ${refused.length} refused, the others are here already`);
    } catch (error) {
      await client.query('ROLLBACK').catch(() => undefined);
      throw error;
    }
  });
}

async function checkInstalled(client: pg.ClientBase): Promise<void> {
  const { rows } = await client.query<{ ours: boolean }>(`SELECT to_regclass('cron.sql_layer') IS NOT NULL AS ours`);
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
  source: pg.ClientConfig,
  say: (line: string) => void,
): Promise<SourceJob[]> {
  const { rows } = await client.query<{ extension: boolean; timezone: string | null }>(
    `SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_cron') AS extension,
            pg_catalog.current_setting('cron.timezone', true) AS timezone`,
  );
  const [{ extension, timezone } = { extension: false, timezone: null }] = rows;
  if (!extension) {
    throw new BgwError('42704', {
      message: `extension "pg_cron" is not installed in ${describeTarget(source)}`,
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
  return jobs.rows;
}

/** Returns what was done, one line a job, and why which jobs are refused. */
async function writeJobs(client: pg.ClientBase, jobs: SourceJob[]): Promise<{ done: string[]; refused: string[] }> {
  // Two imports at once would not see each other's jobs without a name.
  await client.query(`SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('bgw import pg_cron'))`);
  const { rows: known } = await client.query<Job>(
    'SELECT jobid::text, schedule, command, database, username, active, jobname FROM cron.job AS known ORDER BY known.jobid',
  );
  const done: string[] = [];
  const refused: string[] = [];
  for (const job of jobs) {
    await client.query('SAVEPOINT job');
    try {
      const outcome = await writeJob(client, job, known);
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
  known: Job[],
): Promise<'added' | 'changed' | 'unchanged'> {
  if (!job.is_local) {
    throw new BgwError('0A000', { message: 'pg_cron runs it on another server' });
  }
  const { schedule, command, database, username, active, jobname } = job;
  const values = [schedule, command, database, username, active, jobname];
  const index = known.findIndex((other) =>
    jobname === null ? isSame(job, other) : other.jobname === jobname && other.username === username,
  );
  if (index === -1) {
    await client.query(
      'INSERT INTO cron.job (schedule, command, database, username, active, jobname) VALUES ($1, $2, $3, $4, $5, $6)',
      values,
    );
    return 'added';
  }
  // Each job here stands for one job there: two that are alike stay two.
  const [match] = known.splice(index, 1);
  if (match === undefined || isSame(job, match)) return 'unchanged';
  await client.query('UPDATE cron.job SET schedule = $1, command = $2, database = $3, active = $4 WHERE jobid = $5', [
    ...values.slice(0, 3),
    active,
    match.jobid,
  ]);
  return 'changed';
}

function isSame(one: Job, other: Job): boolean {
  const fields = ['schedule', 'command', 'database', 'username', 'active', 'jobname'] as const;
  return fields.every((field) => one[field] === other[field]);
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
