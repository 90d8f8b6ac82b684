/**
 * One user command on the wire: sent as psql would send it, its rows thrown away, its tags, counts and notices kept.
 * Never buffers what a worker returns (I13).  Speaks to pg's Client through its Submittable interface.
 */
import { BgwError } from '../errors.ts';
import type { Connection, DatabaseError, Submittable } from 'pg';

export interface StatementResult {
  /** Command tag of the last statement, such as INSERT 0 3. */
  commandTag: string | undefined;
  /** Row count of that tag. */
  rows: number | undefined;
  /** The error that ended it. */
  error: Error | undefined;
}

interface CommandComplete {
  text: string;
}

interface CopyConnection extends Connection {
  sendCopyFail(message: string): void;
}

/** A command by the simple query protocol. `finished` always resolves, also when the connection is lost. */
export class Statement implements Submittable {
  readonly finished: Promise<StatementResult>;
  readonly #text: string;
  #finish!: (result: StatementResult) => void;
  #commandTag: string | undefined;
  #error: Error | undefined;
  #refusedCopy: BgwError | undefined;

  constructor(text: string) {
    this.#text = text;
    this.finished = new Promise((resolve) => {
      this.#finish = resolve;
    });
  }

  submit(connection: Connection): void {
    connection.query(this.#text);
  }

  handleCommandComplete({ text }: CommandComplete): void {
    this.#commandTag = text;
  }

  /** pg hands a query over after its error message: what follows (ReadyForQuery) no longer comes here. */
  handleError(error: Error | DatabaseError): void {
    this.#error ??= this.#refusedCopy ?? error;
    this.#end();
  }

  handleReadyForQuery(): void {
    this.#end();
  }

  /** COPY ... FROM STDIN: a background worker has no client to copy from. */
  handleCopyInResponse(connection: CopyConnection): void {
    const message = 'COPY FROM STDIN is not possible in a background worker';
    this.#refusedCopy = new BgwError('0A000', { message, hint: 'Copy from a file of the server, or insert rows.' });
    connection.sendCopyFail(message);
  }

  handleRowDescription(): void {}
  handleDataRow(): void {}
  handleCopyData(): void {}
  handleEmptyQuery(): void {}
  handlePortalSuspended(): void {}

  #end(): void {
    this.#finish({ commandTag: this.#commandTag, rows: rowsOf(this.#commandTag), error: this.#error });
  }
}

function rowsOf(commandTag: string | undefined): number | undefined {
  const count = commandTag?.match(/ (\d+)$/)?.[1];
  return count === undefined ? undefined : Number(count);
}
