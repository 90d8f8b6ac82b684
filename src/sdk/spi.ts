/**
 * SQL from a worker, inside a transaction: statements, prepared plans, cursors, subtransactions.
 * PostgreSQL counterpart: SPI_execute, SPI_prepare, SPI_cursor_open, SPI_getbinval, BeginInternalSubTransaction.
 * The session it runs on: src/sdk/spi-session.ts.
 */
import pg, { type QueryResult, type QueryResultRow } from 'pg';
import { BgwError } from '../errors.ts';

/** What a statement returned. */
export interface SpiResult<Row> {
  rows: Row[];
  /** How many rows it processed (SPI_processed). */
  processed: number;
  /** INSERT, SELECT, ... */
  command: string;
}

export interface ExecuteOptions {
  /** Refuses to change anything, as SPI_execute with read_only does: a write fails with 25006. Default false. */
  readOnly?: boolean | undefined;
  /** At most so many rows are computed and returned; the statement has to be a query. Default: all. */
  limit?: number | undefined;
  /**
   * How values arrive. `usual` (default): as pg gives them: bigint and numeric as strings, times as Date (milliseconds), json
   * parsed.  `exact`: bigint as bigint, and times as text with their microseconds; the rest as before.
   */
  values?: 'usual' | 'exact' | undefined;
}

/** A statement that was parsed once; kept until the worker ends (SPI_keepplan). */
export interface Plan {
  readonly text: string;
  /** @internal Its name in a session. */
  readonly name: string;
}

/** Rows of a query, a few at a time. Closed at the end of its transaction at the latest. */
export interface Cursor<Row> extends AsyncIterable<Row> {
  /** The next `count` rows; fewer at the end. */
  fetch(count: number): Promise<Row[]>;
  /** Leaves out `count` rows. Returns how many there were. */
  move(count: number): Promise<number>;
  close(): Promise<void>;
}

/** Inside a transaction. After its end every call fails with 25P01. */
export interface Spi {
  /** Runs one statement with parameters $1, $2, ... Errors: those of the server, as pg's DatabaseError. */
  execute<Row extends QueryResultRow = QueryResultRow>(
    text: string,
    values?: unknown[],
    options?: ExecuteOptions,
  ): Promise<SpiResult<Row>>;

  /** Parses a statement, for executePlan in this and later transactions. Errors: those of the server. */
  prepare(text: string): Promise<Plan>;

  /** Runs a plan. On a session that does not know it, it is parsed again. */
  executePlan<Row extends QueryResultRow = QueryResultRow>(
    plan: Plan,
    values?: unknown[],
    options?: ExecuteOptions,
  ): Promise<SpiResult<Row>>;

  /**
   * Opens a cursor for a query. Read it with `for await`, or with fetch.
   *
   * @example
   * for await (const row of await spi.openCursor('SELECT * FROM big')) await work(row);
   */
  openCursor<Row extends QueryResultRow = QueryResultRow>(
    text: string,
    values?: unknown[],
    options?: Pick<ExecuteOptions, 'values'>,
  ): Promise<Cursor<Row>>;

  /** Runs `work` in a subtransaction: what it throws rolls back what it did, and only that, and is thrown on. Nests. */
  subtransaction<Result>(work: () => Promise<Result>): Promise<Result>;

  /** Calls `callback` when the transaction has ended, however; with whether it was committed. The last one first. */
  onEnd(callback: (committed: boolean) => void): void;
}

/**
 * The value of a column by name, or by number from 1 (SPI_fnumber), where a misspelt name must not pass for NULL.
 * Errors: 42703 there is no such column.
 */
export function getValue(row: QueryResultRow, column: string | number): unknown {
  const name = typeof column === 'number' ? Object.keys(row)[column - 1] : column;
  if (name !== undefined && Object.hasOwn(row, name)) return row[name] as unknown;
  throw new BgwError('42703', {
    message:
      typeof column === 'number' ? `column number ${column} does not exist` : `column "${column}" does not exist`,
    hint: `Columns: ${Object.keys(row).join(', ')}.`,
  });
}

/** Rows that `for await` over a cursor reads at a time. */
const READ_AHEAD = 100;

let lastPlan = 0;

/** The Spi of one transaction. */
export class TransactionSpi implements Spi {
  readonly #client: pg.Client;
  readonly #checkForInterrupts: () => void;
  readonly #callbacks: ((committed: boolean) => void)[] = [];
  hasEnded: boolean = false;
  #lastName = 0;

  /** `checkForInterrupts` is called before each statement; it throws what ends the worker. */
  constructor(client: pg.Client, checkForInterrupts: () => void) {
    this.#client = client;
    this.#checkForInterrupts = checkForInterrupts;
  }

  async execute<Row extends QueryResultRow>(
    text: string,
    values: unknown[] = [],
    options: ExecuteOptions = {},
  ): Promise<SpiResult<Row>> {
    return this.#run<Row>({ text, values }, options);
  }

  async prepare(text: string): Promise<Plan> {
    lastPlan += 1;
    const name = `bgw_plan_${lastPlan}`;
    await this.#query({ text: `PREPARE ${name} AS ${text}`, queryMode: 'extended' });
    await this.#query({ text: `DEALLOCATE ${name}` });
    return { name, text };
  }

  async executePlan<Row extends QueryResultRow>(
    { name, text }: Plan,
    values: unknown[] = [],
    options: ExecuteOptions = {},
  ): Promise<SpiResult<Row>> {
    // A cursor stands for another statement than the plan.
    return this.#run<Row>(options.limit === undefined ? { name, text, values } : { text, values }, options);
  }

  async openCursor<Row extends QueryResultRow>(
    text: string,
    values: unknown[] = [],
    options: Pick<ExecuteOptions, 'values'> = {},
  ): Promise<Cursor<Row>> {
    const name = this.#nextName('cursor');
    await this.#query({ text: `DECLARE ${name} CURSOR FOR ${text}`, values, queryMode: 'extended' });
    const types = typesOf(options);
    const fetch = async (count: number): Promise<Row[]> =>
      (await this.#query<Row>({ text: `FETCH FORWARD ${checkCount(count)} FROM ${name}`, ...types })).rows;
    return {
      fetch,
      move: async (count) =>
        (await this.#query({ text: `MOVE FORWARD ${checkCount(count)} IN ${name}` })).rowCount ?? 0,
      close: async () => void (await this.#query({ text: `CLOSE ${name}` })),
      async *[Symbol.asyncIterator]() {
        for (let rows = await fetch(READ_AHEAD); rows.length > 0; rows = await fetch(READ_AHEAD)) yield* rows;
      },
    };
  }

  async subtransaction<Result>(work: () => Promise<Result>): Promise<Result> {
    const name = this.#nextName('subtransaction');
    await this.#query({ text: `SAVEPOINT ${name}` });
    try {
      const result = await work();
      await this.#query({ text: `RELEASE ${name}` });
      return result;
    } catch (error) {
      // On a lost connection there is nothing to go back to, and the next statement says so.
      if (!this.hasEnded) await this.#query({ text: `ROLLBACK TO ${name}` }).catch(() => undefined);
      throw error;
    }
  }

  onEnd(callback: (committed: boolean) => void): void {
    this.#check();
    this.#callbacks.unshift(callback);
  }

  /** The transaction is over: what somebody still does with it is an error of theirs. */
  end(committed: boolean): void {
    this.hasEnded = true;
    for (const callback of this.#callbacks) callback(committed);
  }

  async #run<Row extends QueryResultRow>(
    statement: pg.QueryConfig,
    { readOnly = false, limit, values }: ExecuteOptions,
  ): Promise<SpiResult<Row>> {
    if (readOnly) {
      // At the end of a subtransaction, however it ends, the mode is again what it was.
      return this.subtransaction(async () => {
        await this.#query({ text: 'SET LOCAL transaction_read_only TO on' });
        return this.#run<Row>(statement, { limit, values });
      });
    }
    if (limit !== undefined) {
      const cursor = await this.openCursor<Row>(statement.text, statement.values, { values });
      const rows = await cursor.fetch(limit);
      await cursor.close();
      return { rows, processed: rows.length, command: 'SELECT' };
    }
    const { rows, rowCount, command } = await this.#query<Row>({ ...statement, ...typesOf({ values }) });
    // The plans of this session are gone; pg would take them for known.
    if (command === 'DEALLOCATE' || command === 'DISCARD') forgetPlans(this.#client);
    return { rows, processed: rowCount ?? 0, command };
  }

  async #query<Row extends QueryResultRow>(
    statement: pg.QueryConfig & { queryMode?: string },
  ): Promise<QueryResult<Row>> {
    this.#check();
    this.#checkForInterrupts();
    return this.#client.query<Row>(statement);
  }

  #check(): void {
    if (!this.hasEnded) return;
    throw new BgwError('25P01', {
      message: 'there is no transaction in progress',
      detail: 'The transaction that this spi was given for has ended.',
      hint: 'Await everything that runs inside bgw.transaction.',
    });
  }

  #nextName(kind: string): string {
    this.#lastName += 1;
    return `bgw_${kind}_${this.#lastName}`;
  }
}

function checkCount(count: number): number {
  if (Number.isSafeInteger(count) && count >= 0) return count;
  throw new BgwError('22023', { message: `invalid number of rows: ${count}` });
}

const { builtins } = pg.types;
const EXACT = new pg.TypeOverrides();
EXACT.setTypeParser(builtins.INT8, BigInt);
for (const type of [builtins.TIMESTAMPTZ, builtins.TIMESTAMP, builtins.DATE]) EXACT.setTypeParser(type, String);

function typesOf({ values }: Pick<ExecuteOptions, 'values'>): { types?: pg.CustomTypesConfig } {
  return values === 'exact' ? { types: EXACT } : {};
}

function forgetPlans(client: pg.Client): void {
  const { connection } = client as pg.Client & { connection: { parsedStatements: object } };
  connection.parsedStatements = {};
}
