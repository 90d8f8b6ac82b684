/**
 * disk_guard: warns when little of the disk is free, and runs an action of yours when it is less still.  The disk is that of the
 * server's data directory, where the controller is on the same machine; otherwise, or if disk_guard.quota is set, the sizes
 * of the databases count against that quota.
 * Try: SELECT bgw_set_config('disk_guard.quota', '50GB'), bgw_set_config('disk_guard.action', 'CALL drop_old_partitions()'), bgw_launch('disk_guard');
 */
import { statfs } from 'node:fs/promises';
import { BgwError, defineLibrary, type Guc, type Spi, type Worker } from '../sdk/index.ts';
import { askServer } from './parts/ask-server.ts';

/** Percent points that free space has to be above a threshold again before it is crossed anew. */
const HYSTERESIS = 1;

let naptime: Guc<number>;
let warnBelow: Guc<number>;
let actBelow: Guc<number>;
let quota: Guc<number>;
let action: Guc<string>;

export default defineLibrary('disk_guard', (init) => {
  naptime = init.defineIntVariable('disk_guard.naptime', {
    boot: 60,
    min: 1,
    max: 86_400,
    unit: 's',
    description: 'Duration between two looks.',
  });
  warnBelow = init.defineRealVariable('disk_guard.warn_below', {
    boot: 20,
    min: 0,
    max: 100,
    description: 'Percent of free space below which it is warned.',
  });
  actBelow = init.defineRealVariable('disk_guard.act_below', {
    boot: 10,
    min: 0,
    max: 100,
    description: 'Percent of free space below which disk_guard.action is run, once until there is more again.',
  });
  quota = init.defineIntVariable('disk_guard.quota', {
    boot: 0,
    min: 0,
    max: 2_147_483_647,
    unit: 'MB',
    description: 'What all databases together may take; 0: the disk decides.',
  });
  action = init.defineStringVariable('disk_guard.action', {
    boot: '',
    description:
      'A statement of SQL that is run, as the owner of the worker, when space is below disk_guard.act_below.',
  });
  init.registerWorker({
    name: 'disk_guard',
    function: main,
    restartTime: 10,
    restartTimeMax: 600,
    maxInstances: 1,
  });
});

export async function main(bgw: Worker): Promise<void> {
  let hasWarned = false;
  let hasActed = false;
  const look = async (): Promise<void> => {
    const { free, of } = await askServer(bgw, (spi) => measure(spi, bgw.guc(quota)));
    const said = `${free.toFixed(2)} % of ${of} is free`;
    if (free < bgw.guc(warnBelow) && !hasWarned) {
      bgw.ereport('WARNING', said, { detail: `disk_guard.warn_below is ${bgw.guc(warnBelow)}.` });
      hasWarned = true;
    } else if (hasWarned && free >= bgw.guc(warnBelow) + HYSTERESIS) {
      bgw.log(said);
      hasWarned = false;
    }
    if (free < bgw.guc(actBelow)) hasActed ||= await act(bgw, said);
    else if (free >= bgw.guc(actBelow) + HYSTERESIS) hasActed = false;
  };
  // An error of the first look, such as a disk that cannot be seen, ends the worker: its last_error says so.
  await look();
  await bgw.mainLoop({ naptime }, look);
}

/** An action that fails has another turn at the next look. */
async function act(bgw: Worker, said: string): Promise<boolean> {
  const statement = bgw.guc(action);
  if (statement === '') return true;
  bgw.ereport('WARNING', `${said}: running disk_guard.action`, { detail: statement });
  try {
    await bgw.command(statement);
    return true;
  } catch (error) {
    const { message, code, detail, hint } = error as Error & { code?: string; detail?: string; hint?: string };
    bgw.ereport('WARNING', `disk_guard.action failed: ${message}`, { code, detail, hint });
    return false;
  }
}

/** Errors: 55000 the disk cannot be seen from here and there is no quota. */
async function measure(spi: Spi, quotaMegabytes: number): Promise<{ free: number; of: string }> {
  if (quotaMegabytes > 0) {
    const { rows } = await spi.execute<{ used: number }>(
      'SELECT sum(pg_database_size(oid))::float8 / 1048576 AS used FROM pg_catalog.pg_database',
    );
    return { free: 100 * (1 - (rows[0]?.used ?? 0) / quotaMegabytes), of: 'the quota' };
  }
  const { rows } = await spi.execute<{ directory: string | null; local: boolean }>(
    `SELECT (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory') AS directory,
            coalesce(inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1', true) AS local`,
  );
  const directory = rows[0]?.local ? rows[0].directory : null;
  const disk = directory === null ? undefined : await statfs(directory).catch(() => undefined);
  if (disk) return { free: (100 * disk.bavail) / disk.blocks, of: 'the disk of the server' };
  throw new BgwError('55000', {
    message: 'disk_guard cannot see the disk of the server',
    detail:
      directory === null
        ? 'The server is on another machine, or its owner may not read data_directory (GRANT pg_read_all_settings).'
        : `There is no directory "${directory}" on the machine of the controller.`,
    hint: 'Set disk_guard.quota to what the databases may take.',
  });
}
