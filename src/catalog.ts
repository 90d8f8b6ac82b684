/**
 * The typed face of sql/control: what a node asks of the database, on its one control session.
 * That session never runs a word of user text, has an empty search_path and its own timeouts (HARDENING A2, B8).
 * Next: sql/control/report.sql and sql/control/take_orders.sql.
 */
import type pg from 'pg';
import type { Clock } from './clock.ts';
import { describeError } from './errors.ts';
import {
  type Answered,
  type Claim,
  decodeOrders,
  decodeStandbyWorkers,
  encodeEvents,
  type Event,
  inAscii,
  type StandbyAnswer,
  type StandbyWorker,
} from './orders.ts';
import type { SettingMessage } from './sdk/channel.ts';
import type { Definitions } from './sdk/library.ts';
import type { Signaller } from './sessions/cancel.ts';
import { openControlSession, type Server } from './sessions/control-session.ts';
import { endClient } from './sessions/end.ts';
import type { Backend } from './sessions/session.ts';

/** What every call of a node carries. */
export interface NodeToken {
  nodeId: string;
  epoch: number;
}

export interface NodeDescription {
  name: string;
  libraries: string[];
  maxWorkerProcesses: number;
}

/** What a node asks for. */
export interface Demand {
  /** How many more processes that take a slot it can start; negative: it is stopping. */
  room: number;
  /** It was rung: what was launched first, everything else in a moment. */
  hurried: boolean;
  /** Nothing that has an earlier turn. */
  since: number;
  /** It has slept, nobody has rung, and it has nothing to report. */
  isPoll: boolean;
}

/** The claim of a node that has nothing to say need not wait for the disk, as bgw.report has it. */
const TAKE_ORDERS = `
  SELECT pg_catalog.set_config('synchronous_commit', 'off', true), bgw.take_orders($1, $2, $3, $4, $5, $6)::pg_catalog.text AS answer`;
const EXCHANGE = `
  WITH reported AS MATERIALIZED (SELECT bgw.report($1, $2, $3))
  SELECT bgw.take_orders($1, $2, $4, since => $5, is_poll => false)::pg_catalog.text AS answer FROM reported`;
/** A worker has said what the encoding of the catalog's database does not have. */
const UNTRANSLATABLE = '22P05';

export class Catalog implements Signaller {
  readonly serverVersion: number;
  /** Whether the server was a standby when the session was opened. */
  readonly inRecovery: boolean;
  readonly closed: Promise<void>;
  readonly #client: pg.Client;
  readonly #clock: Clock;

  private constructor(client: pg.Client, { version, standby }: Server, clock: Clock) {
    this.#client = client;
    this.#clock = clock;
    this.serverVersion = version;
    this.inRecovery = standby;
    this.closed = new Promise((resolve) => client.once('end', resolve));
  }

  /** Opens the control session. Errors: those of openControlSession. */
  static async connect(connection: pg.ClientConfig, clock: Clock): Promise<Catalog> {
    const { client, server } = await openControlSession(connection);
    return new Catalog(client, server, clock);
  }

  async join({ name, libraries, maxWorkerProcesses }: NodeDescription): Promise<NodeToken & { leaseMs: number }> {
    const row = await this.#row<{ node_id: string; epoch: number; lease_ms: number }>(
      'SELECT * FROM bgw.join_node($1, $2, $3)',
      [name, libraries, maxWorkerProcesses],
    );
    return { nodeId: row.node_id, epoch: row.epoch, leaseMs: row.lease_ms };
  }

  /** The node has a new control session; `running` are the run ids it knows. Returns those that are its own. */
  async resume({ nodeId, epoch }: NodeToken, running: string[]): Promise<string[]> {
    const row = await this.#row<{ own: string[] }>('SELECT bgw.resume_node($1, $2, $3) AS own', [
      nodeId,
      epoch,
      running,
    ]);
    return row.own;
  }

  /** Launches that commit from now on do not ring this node. Returns for how many milliseconds; 0: no longer than before. */
  async stayAwake({ nodeId, epoch }: NodeToken): Promise<number> {
    const row = await this.#row<{ awake_ms: number }>('SELECT bgw.stay_awake($1, $2) AS awake_ms', [nodeId, epoch]);
    return row.awake_ms;
  }

  async leave({ nodeId, epoch }: NodeToken): Promise<void> {
    await this.#row('SELECT bgw.leave_node($1, $2)', [nodeId, epoch]);
  }

  /** The number of the newest migration that the database has. */
  async newestMigration(): Promise<number> {
    const row = await this.#row<{ newest: number }>('SELECT max(id) AS newest FROM bgw.migration', []);
    return row.newest;
  }

  /** Settings of this login as they will be when the node has joined. */
  async settingsAtStart(): Promise<SettingMessage[]> {
    const { rows } = await this.#client.query<SettingMessage>(
      'SELECT name, vartype, unit, coalesce(pending, setting, boot_val) AS setting FROM bgw.setting WHERE owner OPERATOR(pg_catalog.=) bgw.current_owner()',
    );
    return rows;
  }

  async defineLibrary({ settings, workers, prefixes }: Definitions): Promise<void> {
    await this.#row(
      'SELECT bgw.define_library($1, $2, $3)',
      [settings, workers, prefixes].map((part) => JSON.stringify(part)),
    );
  }

  /** Claims what the node started before it could reach the database: a claim for each worker that is its own. */
  async adopt({ nodeId, epoch }: NodeToken, names: string[]): Promise<Claim[]> {
    const row = await this.#row<{ adopted: Claim[] }>('SELECT bgw.adopt_processes($1, $2, $3) AS adopted', [
      nodeId,
      epoch,
      names,
    ]);
    return row.adopted;
  }

  /** Says what happened and takes the next orders, in one round trip and one transaction. */
  async exchange(
    { nodeId, epoch }: NodeToken,
    events: readonly Event[],
    { room, hurried, since, isPoll }: Demand,
  ): Promise<Answered> {
    if (events.length === 0)
      return this.#orders('take_orders', TAKE_ORDERS, [nodeId, epoch, room, hurried, since, isPoll]);
    const report = encodeEvents(events, this.#clock);
    const exchange = (encoded: string): Promise<Answered> =>
      this.#orders('exchange', EXCHANGE, [nodeId, epoch, encoded, room, since]);
    return exchange(report).catch((error: unknown) => {
      if (describeError(error).code !== UNTRANSLATABLE) throw error;
      return exchange(inAscii(report));
    });
  }

  /** Registers a session of this node, before it runs any user text. Returns its start time. */
  async registerSession({ nodeId, epoch }: NodeToken, pid: number, database: string): Promise<string> {
    const row = await this.#row<{ started: string }>(
      'SELECT bgw.register_session($1, $2, $3, $4)::pg_catalog.text AS started',
      [nodeId, epoch, pid, database],
    );
    return row.started;
  }

  /** On a standby, where nothing can be registered: the start time of a session. Errors: WK202 it cannot be seen. */
  async backendStart(pid: number): Promise<string> {
    return (await this.#row<{ started: string }>('SELECT bgw.backend_start($1)::pg_catalog.text AS started', [pid]))
      .started;
  }

  /** What to run on a standby; undefined: the server is one no longer. */
  async standbyWorkers(libraries: string[]): Promise<StandbyWorker[] | undefined> {
    const { found } = await this.#row<{ found: StandbyAnswer | null }>('SELECT bgw.standby_workers($1) AS found', [
      libraries,
    ]);
    return found ? decodeStandbyWorkers(found) : undefined;
  }

  /** In how many milliseconds a worker that ended on a standby starts again, null: never; and its failures in a row. */
  async standbyRestart(
    workerId: string,
    ended: { exitCode: number | null; ranMs: number; failures: number },
  ): Promise<{ waitMs: number | null; failures: number }> {
    const { wait_ms, failures } = await this.#row<{ wait_ms: number | null; failures: number }>(
      'SELECT * FROM bgw.standby_restart($1, $2, $3, $4)',
      [workerId, ended.exitCode, ended.ranMs, ended.failures],
    );
    return { waitMs: wait_ms, failures };
  }

  /** Whether this session now holds the lock of a worker on a standby. */
  async lockWorker(workerId: string): Promise<boolean> {
    const row = await this.#row<{ locked: boolean }>(
      'SELECT pg_catalog.pg_try_advisory_lock(bgw.standby_key($1)) AS locked',
      [workerId],
    );
    return row.locked;
  }

  async unlockWorker(workerId: string): Promise<void> {
    await this.#row('SELECT pg_catalog.pg_advisory_unlock(bgw.standby_key($1))', [workerId]);
  }

  async ownPid(): Promise<number> {
    return (await this.#row<{ pid: number }>('SELECT pg_catalog.pg_backend_pid() AS pid', [])).pid;
  }

  async cancelBackend(backend: Backend): Promise<boolean> {
    return this.#signal('pg_cancel_backend', backend);
  }

  async terminateBackend(backend: Backend): Promise<boolean> {
    return this.#signal('pg_terminate_backend', backend);
  }

  async close(): Promise<void> {
    await endClient(this.#client);
  }

  /** By pid and start time: a pid alone may by now be somebody else's. */
  async #signal(how: 'pg_cancel_backend' | 'pg_terminate_backend', { pid, backendStart }: Backend): Promise<boolean> {
    const { rows } = await this.#client.query<{ sent: boolean }>(
      `SELECT pg_catalog.${how}(pid) AS sent FROM pg_catalog.pg_stat_activity WHERE pid = $1 AND backend_start = $2`,
      [pid, backendStart],
    );
    return rows[0]?.sent ?? false;
  }

  async #orders(name: string, text: string, values: unknown[]): Promise<Answered> {
    const { rows } = await this.#client.query<{ answer: string }>({ name, text, values });
    return decodeOrders(rows[0]?.answer ?? '');
  }

  async #row<Row extends pg.QueryResultRow>(text: string, values: unknown[]): Promise<Row> {
    const { rows } = await this.#client.query<Row>(text, values);
    return rows[0] as Row;
  }
}
