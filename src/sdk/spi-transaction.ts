/**
 * The Spi of one transaction, on a pipelined connection: what belongs together is sent in one go, so that statements of a
 * worker that does not wait for each of them never come between.  The session it runs on: src/sdk/spi-session.ts.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import type pg from 'pg';
import type { QueryResult, QueryResultRow } from 'pg';
import { BgwError, describeError } from '../errors.ts';
import { runStatement } from './session.ts';
import type { Cursor, ExecuteOptions, Plan, Spi, SpiResult } from './spi.ts';
import { beside, noTransaction, overlapping } from './spi-errors.ts';
import { identifyAgain } from './spi-identity.ts';
import { typesOf } from './spi-values.ts';

/** Rows that `for await` over a cursor reads at a time. */
const READ_AHEAD = 100;

type Statement = pg.QueryConfig & { queryMode?: string };

/** What a transaction needs of its session. */
export interface TransactionHooks {
  /** Called before each statement; throws what ends the worker. */
  checkForInterrupts: () => void;
  warn: (error: unknown) => void;
}

interface Subtransaction {
  readonly of: TransactionSpi;
  readonly name: string;
  /** Until RELEASE or ROLLBACK TO is sent. */
  isOpen: boolean;
}

/** The innermost subtransaction that the calling code is inside of. */
const inside = new AsyncLocalStorage<Subtransaction>();

export class TransactionSpi implements Spi {
  readonly #client: pg.Client;
  readonly #hooks: TransactionHooks;
  readonly #callbacks: ((committed: boolean) => void)[] = [];
  /** The open ones, the innermost last. */
  readonly #subtransactions: Subtransaction[] = [];
  /** Until COMMIT or ROLLBACK is sent: a statement sent behind it would be one of its own. */
  isOpen: boolean = true;
  isCommitted: boolean = false;
  #lastName = 0;

  constructor(client: pg.Client, hooks: TransactionHooks) {
    this.#client = client;
    this.#hooks = hooks;
  }

  async execute<Row extends QueryResultRow>(
    text: string,
    values: unknown[] = [],
    options: ExecuteOptions = {},
  ): Promise<SpiResult<Row>> {
    return this.#run<Row>({ text, values }, options);
  }

  async prepare(text: string): Promise<Plan> {
    const name = nextPlanName();
    await this.#query({ text: `PREPARE ${name} AS ${text}`, queryMode: 'extended' });
    await this.#query({ text: `DEALLOCATE ${name}` });
    return { name, text };
  }

  async executePlan<Row extends QueryResultRow>(
    plan: Plan,
    values: unknown[] = [],
    options: ExecuteOptions = {},
  ): Promise<SpiResult<Row>> {
    const { name, text } = plan;
    try {
      // A cursor stands for another statement than the plan.
      return await this.#run<Row>(options.limit === undefined ? { name, text, values } : { text, values }, options);
    } catch (error) {
      if (isUseless(error) && plan.name === name) plan.name = nextPlanName();
      throw error;
    }
  }

  async openCursor<Row extends QueryResultRow>(
    text: string,
    values: unknown[] = [],
    options: Pick<ExecuteOptions, 'values'> = {},
  ): Promise<Cursor<Row>> {
    const name = this.#nextName('cursor');
    await this.#query(declare(name, { text, values }));
    // A count of 0 would be the row that the cursor stands on, once more.
    const fetch = async (count: number): Promise<Row[]> =>
      checkCount(count) === 0 ? [] : (await this.#query<Row>(fetchFrom(name, count, options))).rows;
    const close = async (): Promise<void> => void (await this.#query({ text: `CLOSE ${name}` }));
    return {
      fetch,
      move: async (count) =>
        checkCount(count) === 0 ? 0 : ((await this.#query({ text: `MOVE FORWARD ${count} IN ${name}` })).rowCount ?? 0),
      close,
      [Symbol.asyncIterator]: () => this.#read(fetch, close),
    };
  }

  async subtransaction<Result>(work: () => Promise<Result>): Promise<Result> {
    this.#checkPlace();
    const name = this.#nextName('subtransaction');
    const own: Subtransaction = { of: this, name, isOpen: true };
    this.#subtransactions.push(own);
    try {
      await this.#send({ text: `SAVEPOINT ${name}` });
      const result = await inside.run(own, work);
      if (this.#subtransactions.at(-1) !== own) throw overlapping();
      own.isOpen = false;
      await this.#send({ text: `RELEASE ${name}` });
      this.#subtransactions.pop();
      return result;
    } catch (error) {
      const depth = this.#subtransactions.indexOf(own);
      if (depth >= 0) {
        for (const ended of this.#subtransactions.splice(depth)) ended.isOpen = false;
        await this.#rollBackTo(name);
      }
      throw error;
    }
  }

  onEnd(callback: (committed: boolean) => void): void {
    this.#check();
    this.#callbacks.unshift(callback);
  }

  /** The transaction is about to be over: what somebody still does with it is an error of theirs. */
  close(): void {
    this.isOpen = false;
  }

  end(committed: boolean): void {
    this.isCommitted = committed;
    for (const callback of this.#callbacks) {
      try {
        callback(committed);
      } catch (error) {
        this.#hooks.warn(error);
      }
    }
  }

  async *#read<Row>(fetch: (count: number) => Promise<Row[]>, close: () => Promise<void>): AsyncGenerator<Row> {
    try {
      for (let rows = await fetch(READ_AHEAD); rows.length > 0; rows = await fetch(READ_AHEAD)) yield* rows;
    } finally {
      // A transaction that has failed has closed it.
      if (this.isOpen && this.#client.getTransactionStatus() === 'T') await close();
    }
  }

  async #run<Row extends QueryResultRow>(
    statement: pg.QueryConfig,
    { readOnly = false, limit, values }: ExecuteOptions,
  ): Promise<SpiResult<Row>> {
    if (limit !== undefined) {
      const name = this.#nextName('cursor');
      const fetch = fetchFrom(name, checkCount(limit), { values });
      const [, fetched] = await this.#brackets<Row>(readOnly, [
        declare(name, statement),
        fetch,
        { text: `CLOSE ${name}` },
      ]);
      const rows = fetched?.rows ?? [];
      return { rows, processed: rows.length, command: 'SELECT' };
    }
    const [result] = await this.#brackets<Row>(readOnly, [
      { ...statement, queryMode: 'extended', ...typesOf({ values }) },
    ]);
    const { rows = [], rowCount = 0, command = '' } = result ?? {};
    forgetPlans(this.#client, command);
    await identifyAgain(this.#client, command);
    return { rows, processed: rowCount ?? 0, command };
  }

  /** Runs statements, with `readOnly` in a subtransaction: at its end, however it ends, the mode is again what it was. */
  async #brackets<Row extends QueryResultRow>(
    readOnly: boolean,
    statements: readonly Statement[],
  ): Promise<QueryResult<Row>[]> {
    if (!readOnly) return this.#batch<Row>(statements).results();
    const name = this.#nextName('subtransaction');
    const batch = this.#batch<Row>([
      { text: `SAVEPOINT ${name}` },
      { text: 'SET LOCAL transaction_read_only TO on' },
      ...statements,
      { text: `RELEASE ${name}` },
    ]);
    try {
      return (await batch.results()).slice(2, -1);
    } catch (error) {
      if (await batch.began()) await this.#rollBackTo(name);
      throw error;
    }
  }

  /** Sends statements in one go, so that none of somebody else comes between them. */
  #batch<Row extends QueryResultRow>(statements: readonly Statement[]): Batch<Row> {
    const sent = Promise.allSettled(statements.map((statement) => this.#query<Row>(statement)));
    return {
      began: async () => (await sent)[0]?.status === 'fulfilled',
      results: async () =>
        (await sent).map((settled) => {
          if (settled.status === 'rejected') throw settled.reason;
          return settled.value;
        }),
    };
  }

  /** On a lost connection there is nothing to go back to, and the next statement says so. */
  async #rollBackTo(name: string): Promise<void> {
    if (!this.isOpen) return;
    await Promise.all([this.#send({ text: `ROLLBACK TO ${name}` }), this.#send({ text: `RELEASE ${name}` })]).catch(
      () => undefined,
    );
  }

  async #query<Row extends QueryResultRow>(statement: Statement): Promise<QueryResult<Row>> {
    this.#checkPlace();
    return this.#send<Row>(statement);
  }

  async #send<Row extends QueryResultRow>(statement: Statement): Promise<QueryResult<Row>> {
    this.#check();
    this.#hooks.checkForInterrupts();
    return runStatement<Row>(this.#client, statement);
  }

  #check(): void {
    if (!this.isOpen) throw noTransaction();
  }

  /** A statement from elsewhere would be part of the innermost subtransaction, and undone with it. */
  #checkPlace(): void {
    this.#check();
    const own = inside.getStore();
    const place = own?.of === this ? own : undefined;
    if (place && !place.isOpen) throw noTransaction('subtransaction');
    if (place !== this.#subtransactions.at(-1)) throw beside();
  }

  #nextName(kind: string): string {
    this.#lastName += 1;
    return `bgw_${kind}_${this.#lastName}`;
  }
}

interface Batch<Row extends QueryResultRow> {
  /** Whether the first one succeeded. */
  began: () => Promise<boolean>;
  /** Of all of them. Throws the first error. */
  results: () => Promise<QueryResult<Row>[]>;
}

function declare(name: string, { text, values }: pg.QueryConfig): Statement {
  return { text: `DECLARE ${name} CURSOR FOR ${text}`, ...(values ? { values } : {}), queryMode: 'extended' };
}

function fetchFrom(name: string, count: number, options: Pick<ExecuteOptions, 'values'>): Statement {
  return { text: `FETCH FORWARD ${count} FROM ${name}`, ...typesOf(options) };
}

function checkCount(count: number): number {
  if (Number.isSafeInteger(count) && count >= 0) return count;
  throw new BgwError('22023', { message: `invalid number of rows: ${count}` });
}

/** Runs a transaction that does nothing: the next one finds the code and the backend warm. */
export async function rehearse(client: pg.Client): Promise<void> {
  await client.query('BEGIN');
  await new TransactionSpi(client, { checkForInterrupts: () => undefined, warn: () => undefined }).execute(
    'SELECT $1::pg_catalog.int4',
    [0],
  );
  await client.query('COMMIT');
}

let lastPlan = 0;

function nextPlanName(): string {
  lastPlan += 1;
  return `bgw_plan_${lastPlan}`;
}

/** Whether the plan that failed so is of no use in its session: it is gone, or its result has another type now. */
function isUseless(error: unknown): boolean {
  const { code } = describeError(error);
  return code === '26000' || code === '0A000';
}

/** After a command of this tag the plans of the session are gone; pg would take them for known. */
export function forgetPlans(client: pg.Client, tag: string): void {
  if (tag !== 'DEALLOCATE' && tag !== 'DISCARD') return;
  const { connection } = client as pg.Client & { connection: { parsedStatements: object } };
  connection.parsedStatements = {};
}
