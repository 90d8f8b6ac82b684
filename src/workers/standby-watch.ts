/**
 * standby_watch: watches replication: on a primary how far each standby lags, on a standby how far its replay does.  Says so in
 * the log, by NOTIFY and to a webhook when a limit is crossed, when a standby is gone, and when it is well again.
 * On a standby nobody launches: there it is one of your own with autostart, SELECT bgw_register('replay_watch',
 * library_name => 'standby_watch', function_name => 'main', start_time => 'consistent_state', autostart => true);
 * Try: SELECT bgw_set_config('standby_watch.max_lag_bytes', '16MB'), bgw_launch('standby_watch'); LISTEN standby_watch;
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { BgwError, defineLibrary, type Guc, type Spi, type Worker } from '../sdk/index.ts';
import { askServer } from './parts/ask-server.ts';

/** A webhook is tried so often, first after this time, then after twice as long each time. */
const WEBHOOK_ATTEMPTS = 4;
const WEBHOOK_RETRY = 500;
const WEBHOOK_TIMEOUT = 5000;
/** Alerts that wait for a webhook which does not answer; more are not sent there. */
const MOST_WAITING = 100;

let naptime: Guc<number>;
let maxBytes: Guc<number>;
let maxTime: Guc<number>;
let channel: Guc<string>;
let webhookUrl: Guc<string>;

export default defineLibrary('standby_watch', (init) => {
  naptime = init.defineIntVariable('standby_watch.naptime', {
    boot: 10,
    min: 1,
    max: 3600,
    unit: 's',
    description: 'Duration between two looks.',
  });
  maxBytes = init.defineIntVariable('standby_watch.max_lag_bytes', {
    boot: 64 * 1024,
    min: 1,
    max: 2_147_483_647,
    unit: 'kB',
    description: 'WAL that a standby may still have to replay.',
  });
  maxTime = init.defineIntVariable('standby_watch.max_lag_time', {
    boot: 60,
    min: 1,
    max: 86_400,
    unit: 's',
    description: 'Time by which the replay of a standby may lag.',
  });
  channel = init.defineStringVariable('standby_watch.channel', {
    boot: 'standby_watch',
    description: 'Channel of NOTIFY for alerts; empty: none.  A standby cannot notify.',
  });
  webhookUrl = init.defineStringVariable('standby_watch.webhook_url', {
    boot: '',
    description: 'URL that alerts are posted to as JSON; empty: none.',
  });
  init.registerWorker({
    name: 'standby_watch',
    function: main,
    startTime: 'consistent_state',
    restartTime: 10,
    restartTimeMax: 600,
    maxInstances: 1,
  });
});

/** How far behind one standby is; null: the server does not know. */
interface Lag {
  standby: string;
  state: string | null;
  bytes: number | null;
  seconds: number | null;
}

/** What is sent: as payload of NOTIFY, and as body of the webhook. */
interface Alert extends Lag {
  event: 'lagging' | 'gone' | 'recovered';
  node: 'primary' | 'standby';
  at: string;
}

export async function main(bgw: Worker): Promise<void> {
  const webhook = new Webhook(bgw);
  /** Standbys that were there, and whether they lagged. */
  const known = new Map<string, boolean>();
  await bgw.mainLoop({ naptime }, async () => {
    const alerts = await askServer(bgw, async (spi) => {
      const { rows } = await spi.execute<{ replays: boolean }>('SELECT pg_catalog.pg_is_in_recovery() AS replays');
      const isStandby = rows[0]?.replays ?? false;
      const lags = isStandby ? await replayLag(spi) : await standbyLags(spi);
      const changes = compare(lags, known, { bytes: bgw.guc(maxBytes) * 1024, seconds: bgw.guc(maxTime) });
      const from = { node: isStandby ? 'standby' : 'primary', at: new Date().toISOString() } as const;
      const found = changes.map((change): Alert => Object.assign(change, from));
      if (!isStandby) await notify(spi, bgw.guc(channel), found);
      return found;
    });
    // Only what was committed counts as said.
    for (const alert of alerts) {
      if (alert.event === 'gone') known.delete(alert.standby);
      else known.set(alert.standby, alert.event === 'lagging');
      say(bgw, alert);
      webhook.post(bgw.guc(webhookUrl), alert);
    }
  });
}

async function standbyLags(spi: Spi): Promise<Lag[]> {
  const { rows } = await spi.execute<Lag & { hidden: boolean }>(
    `SELECT coalesce(nullif(application_name, ''), 'walsender') || coalesce(' at ' || host(client_addr), '') AS standby, state, state IS NULL AS hidden,
            pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), coalesce(replay_lsn, sent_lsn))::float8 AS bytes,
            date_part('epoch', replay_lag) AS seconds
     FROM pg_catalog.pg_stat_replication WHERE state IS DISTINCT FROM 'backup' ORDER BY 1`,
  );
  if (rows.some(({ hidden }) => hidden)) {
    throw new BgwError('42501', {
      message: 'standby_watch may not see the state of the standbys',
      hint: 'GRANT pg_monitor to its owner.',
    });
  }
  return rows.map(({ hidden: _hidden, ...lag }) => lag);
}

/** A standby that has replayed all it has received is not behind, however long ago the last transaction was. */
async function replayLag(spi: Spi): Promise<Lag[]> {
  const { rows } = await spi.execute<Lag>(
    `SELECT 'this standby' AS standby, CASE WHEN pg_catalog.pg_is_wal_replay_paused() THEN 'paused' ELSE 'replaying' END AS state,
            behind.bytes, CASE WHEN behind.bytes > 0 THEN date_part('epoch', now() - pg_catalog.pg_last_xact_replay_timestamp()) ELSE 0 END AS seconds
     FROM (SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())::float8 AS bytes) AS behind`,
  );
  return rows;
}

/** What has changed since the last look; a standby that is new and well is no news. */
function compare(
  lags: readonly Lag[],
  known: Map<string, boolean>,
  limit: { bytes: number; seconds: number },
): (Lag & Pick<Alert, 'event'>)[] {
  const changes: (Lag & Pick<Alert, 'event'>)[] = [];
  for (const lag of lags) {
    const isLagging = (lag.bytes ?? 0) > limit.bytes || (lag.seconds ?? 0) > limit.seconds;
    const wasLagging = known.get(lag.standby);
    if (isLagging && !wasLagging) changes.push({ ...lag, event: 'lagging' });
    else if (!isLagging && wasLagging) changes.push({ ...lag, event: 'recovered' });
    else known.set(lag.standby, isLagging);
  }
  for (const standby of known.keys()) {
    if (lags.some((lag) => lag.standby === standby)) continue;
    changes.push({ standby, state: null, bytes: null, seconds: null, event: 'gone' });
  }
  return changes;
}

async function notify(spi: Spi, to: string, alerts: readonly Alert[]): Promise<void> {
  if (to === '') return;
  for (const alert of alerts) await spi.execute('SELECT pg_catalog.pg_notify($1, $2)', [to, JSON.stringify(alert)]);
}

function say(bgw: Worker, { event, standby, bytes, seconds }: Alert): void {
  const behind = `${bytes ?? 'unknown'} bytes, ${seconds === null ? 'unknown' : seconds.toFixed(1)} s`;
  if (event === 'gone') bgw.ereport('WARNING', `standby "${standby}" is gone`);
  else if (event === 'lagging') bgw.ereport('WARNING', `standby "${standby}" lags: ${behind}`);
  else bgw.log(`standby "${standby}" has caught up: ${behind}`);
}

/** Posts alerts in order, beside the main loop, which never waits for it. */
class Webhook {
  readonly #bgw: Worker;
  readonly #end = new AbortController();
  #sent: Promise<void> = Promise.resolve();
  #waiting = 0;

  constructor(bgw: Worker) {
    this.#bgw = bgw;
    bgw.onExit(() => this.#end.abort());
  }

  post(url: string, alert: Alert): void {
    if (url === '') return;
    if (this.#waiting >= MOST_WAITING) {
      this.#bgw.ereport('WARNING', `an alert was not posted: ${MOST_WAITING} wait for the webhook already`);
      return;
    }
    this.#waiting += 1;
    this.#sent = this.#sent.then(() => this.#deliver(url, alert)).finally(() => (this.#waiting -= 1));
  }

  async #deliver(url: string, alert: Alert): Promise<void> {
    for (let attempt = 1; !this.#end.signal.aborted; attempt += 1) {
      const problem = await attemptPost(url, alert, this.#end.signal);
      if (problem === undefined) return;
      if (attempt === WEBHOOK_ATTEMPTS) {
        this.#bgw.ereport('WARNING', `an alert could not be posted to the webhook: ${problem}`, {
          detail: `${WEBHOOK_ATTEMPTS} attempts.`,
          hint: 'See standby_watch.webhook_url.',
        });
        return;
      }
      await sleep(WEBHOOK_RETRY * 2 ** (attempt - 1), undefined, { signal: this.#end.signal }).catch(() => undefined);
    }
  }
}

/** undefined: it was taken. */
async function attemptPost(url: string, alert: Alert, end: AbortSignal): Promise<string | undefined> {
  try {
    const answer = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(alert),
      redirect: 'error',
      signal: AbortSignal.any([AbortSignal.timeout(WEBHOOK_TIMEOUT), end]),
    });
    await answer.body?.cancel();
    return answer.ok ? undefined : `it answered with ${answer.status}`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
