/**
 * SQL from a worker, inside a transaction: statements, prepared plans, cursors, subtransactions.
 * PostgreSQL counterpart: SPI_execute, SPI_prepare, SPI_cursor_open, SPI_getbinval, BeginInternalSubTransaction.
 * What does it: src/sdk/spi-transaction.ts.
 */
import type { QueryResultRow } from 'pg';
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
   * parsed.  `exact`: bigint as bigint, and times as text with their microseconds, in arrays too; the rest as before.
   */
  values?: 'usual' | 'exact' | undefined;
}

/** A statement that was parsed once; kept until the worker ends (SPI_keepplan). */
export interface Plan {
  readonly text: string;
  /** @internal Its name in a session; another one when what it stands for there is of no use any longer. */
  name: string;
}

/** Rows of a query, a few at a time. Closed by the end of `for await`, and at the end of its transaction at the latest. */
export interface Cursor<Row> extends AsyncIterable<Row> {
  /** The next `count` rows; fewer at the end. */
  fetch(count: number): Promise<Row[]>;
  /** Leaves out `count` rows. Returns how many there were. */
  move(count: number): Promise<number>;
  close(): Promise<void>;
}

/** Inside a transaction. From the moment at which that is committed or rolled back every call fails with 25P01. */
export interface Spi {
  /**
   * Runs one statement with parameters $1, $2, ...  Several may be run without waiting for each other: one after another.
   * Errors: those of the server, as pg's DatabaseError; 42601 more than one statement; 0A000 COPY FROM STDIN.
   */
  execute<Row extends QueryResultRow = QueryResultRow>(
    text: string,
    values?: unknown[],
    options?: ExecuteOptions,
  ): Promise<SpiResult<Row>>;

  /** Parses a statement, for executePlan in this and later transactions. Errors: those of the server. */
  prepare(text: string): Promise<Plan>;

  /**
   * Runs a plan.  On a session that does not know it, it is parsed again.  Errors: those of the server; 0A000 its result has
   * another type since a table was altered, 26000 a function has deallocated it: the next use parses it again.
   */
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

  /**
   * Runs `work` in a subtransaction: what it throws rolls back what it did, and only that, and is thrown on. Nests.
   * While it is open, nothing else can be run in the transaction from outside of `work`: 2D000.  What `work` has left behind
   * is refused when it has ended: 25P01.  Errors: 2D000 one that began inside of it is still open.
   */
  subtransaction<Result>(work: () => Promise<Result>): Promise<Result>;

  /**
   * Calls `callback` when the transaction has ended, however; with whether it was committed.  The last one first.
   * What it throws is a WARNING: the transaction has ended already.
   */
  onEnd(callback: (committed: boolean) => void): void;
}

/**
 * The value of a column by name, or by number from 1 (SPI_fnumber), where a misspelt name must not pass for NULL.
 * A row is an object: columns of the same name count as one, and one that is named like a number comes first.
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
