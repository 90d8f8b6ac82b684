/**
 * The simple query protocol on the connection of a worker's session: pg opens and closes it, in between this speaks.
 * Several statements go in one write, so that a run costs one round trip.  Rows and COPY data are dropped unread, and an
 * error or notice is kept to a readable length: one value of 600 MB would end the process in the socket's handler, where
 * nobody can catch it, and so every worker of the node (I13).
 */
import type { Duplex } from 'node:stream';
import { BgwError } from '../errors.ts';

/** An error or notice of the server, by the field names of pg. */
export interface Notice {
  severity: string;
  code: string;
  message: string;
  detail: string | undefined;
  hint: string | undefined;
  where: string | undefined;
  routine: string | undefined;
}

export type OnNotice = (notice: Notice) => void;

export interface Statement {
  text: string;
  onNotice?: OnNotice | undefined;
  /** It begins with a statement of ours that takes no time. */
  isOpening?: boolean;
  /** How many statements there are in the text before the one whose command tag is asked for; otherwise it is the last. */
  ahead?: number;
}

export interface Reply {
  /** Command tag of the last statement that was completed, such as INSERT 0 3; see Statement.ahead. */
  commandTag: string | undefined;
  /** Row count of that tag. */
  rows: number | undefined;
  /** The error that ended it, also when the connection was lost. */
  error: Error | undefined;
}

interface Pending extends Reply {
  statement: Statement;
  /** How many statements of its text have been completed. */
  completed: number;
  refused: Error | undefined;
  /** Of the last of those that were sent together. */
  finish: (() => void) | undefined;
}

const COMMAND_COMPLETE = 0x43; // C
const COPY_IN = 0x47; // G
const ERROR = 0x45; // E
const NOTICE = 0x4e; // N
const READY_FOR_QUERY = 0x5a; // Z
const QUERY = 0x51; // Q
const HEADER_LENGTH = 5;
/** What is kept of an error or notice, in bytes: more than anybody reads. */
const LONGEST_TEXT = 65_536;
const NOTHING = Buffer.alloc(0);

export class Wire {
  /** I: idle, T: in a transaction, E: in one that has failed. */
  status = 'I';
  /** The server has said that it ends the session: its backend goes with the connection. */
  isEnding = false;
  readonly #stream: Duplex;
  readonly #pending: Pending[] = [];
  /** Bytes of a frame that is not complete yet, and of one whose rest is to be dropped. */
  #rest: Buffer = NOTHING;
  #drop = 0;

  /** Takes the stream over from pg, which has to be idle. */
  constructor(stream: Duplex) {
    this.#stream = stream;
    stream.removeAllListeners('data');
    stream.on('data', (data: Buffer) => this.#read(data));
    stream.once('close', () => this.#lose());
  }

  /** Sends statements together. Resolves when the last has ended, and never rejects. One that fails does not keep the next from running. */
  send(statements: readonly Statement[]): Promise<Reply[]> {
    return new Promise((resolve) => {
      const replies = statements.map((statement): Pending => ({
        commandTag: undefined,
        rows: undefined,
        error: undefined,
        statement,
        completed: 0,
        refused: undefined,
        finish: undefined,
      }));
      const last = replies.at(-1);
      if (last) last.finish = () => resolve(replies);
      this.#pending.push(...replies);
      if (this.#stream.writable) this.#stream.write(encode(statements));
      else this.#lose();
    });
  }

  #read(data: Buffer): void {
    const bytes = this.#rest.length === 0 ? data : Buffer.concat([this.#rest, data]);
    let position = 0;
    for (;;) {
      const dropped = Math.min(this.#drop, bytes.length - position);
      this.#drop -= dropped;
      position += dropped;
      if (bytes.length - position < HEADER_LENGTH) break;
      const type = bytes[position] as number;
      const length = bytes.readInt32BE(position + 1) - 4;
      const kept = this.#isWanted(type) ? Math.min(length, LONGEST_TEXT) : 0;
      const start = position + HEADER_LENGTH;
      if (bytes.length - start < kept) break;
      position = start + kept;
      this.#drop = length - kept;
      this.#take(type, bytes, start, position);
    }
    this.#rest = position < bytes.length ? bytes.subarray(position) : NOTHING;
  }

  #isWanted(type: number): boolean {
    return type === COMMAND_COMPLETE || type === READY_FOR_QUERY || type === ERROR || type === NOTICE;
  }

  #take(type: number, bytes: Buffer, start: number, end: number): void {
    const current = this.#pending[0];
    if (!current) return; // of an idle session: a FATAL, after which it is closed
    const { statement } = current;
    switch (type) {
      case COMMAND_COMPLETE:
        if (statement.ahead === undefined || statement.ahead === current.completed)
          current.commandTag = bytes.toString('latin1', start, end - 1);
        current.completed += 1;
        return;
      case ERROR:
        this.#fail(current, errorOf(bytes.subarray(start, end)));
        return;
      case NOTICE:
        statement.onNotice?.(noticeOf(bytes.subarray(start, end)));
        return;
      case COPY_IN:
        current.refused = this.#refuseCopy();
        return;
      case READY_FOR_QUERY:
        this.status = bytes.toString('latin1', start, end);
        current.rows = rowsOf(current.commandTag);
        this.#pending.shift();
        current.finish?.();
        return;
      default: // rows and what describes them, COPY data, changes of parameters
    }
  }

  #fail(current: Pending, error: BgwError): void {
    this.isEnding ||= error.severity === 'FATAL' || error.severity === 'PANIC';
    current.error ??= current.refused ?? error;
    // A timeout that had passed before: whether the answer of the statement itself is still to come, nobody knows.
    if (current.statement.isOpening && current.completed === 0 && isCancelled(current.error)) {
      const { code, message, detail, hint, where } = error;
      current.error = new BgwError(code, { severity: 'FATAL', message, detail, hint, where });
      this.#stream.destroy();
      this.#lose();
    }
  }

  /** COPY ... FROM STDIN: a background worker has no client to copy from. */
  #refuseCopy(): BgwError {
    const message = 'COPY FROM STDIN is not possible in a background worker';
    this.#stream.write(Buffer.concat([Buffer.from([0x66, 0, 0, 0, 5 + message.length]), Buffer.from(`${message}\0`)])); // CopyFail
    return new BgwError('0A000', { message, hint: 'Copy from a file of the server, or insert rows.' });
  }

  #lose(): void {
    for (const pending of this.#pending.splice(0)) {
      // No word of the server, which may have committed.
      pending.error ??= new BgwError('08006', { severity: 'FATAL', message: 'the connection to the server was lost' });
      pending.finish?.();
    }
  }
}

function encode(statements: readonly Statement[]): Buffer {
  let length = 0;
  for (const { text } of statements) length += HEADER_LENGTH + Buffer.byteLength(text) + 1;
  const bytes = Buffer.allocUnsafe(length);
  let position = 0;
  for (const { text } of statements) {
    const end = bytes.write(text, position + HEADER_LENGTH) + position + HEADER_LENGTH;
    bytes[position] = QUERY;
    bytes.writeInt32BE(end - position, position + 1);
    bytes[end] = 0;
    position = end + 1;
  }
  return bytes;
}

function isCancelled(error: Error): boolean {
  return (error as { code?: string }).code === '57014';
}

function rowsOf(commandTag: string | undefined): number | undefined {
  const count = commandTag?.match(/ (\d+)$/)?.[1];
  return count === undefined ? undefined : Number(count);
}

function errorOf(payload: Buffer): BgwError {
  const { code, ...fields } = noticeOf(payload);
  return new BgwError(code, fields);
}

/** Fields of one letter each, in a terminated string; the last one may be cut. */
function noticeOf(payload: Buffer): Notice {
  const fields = new Map<string, string>();
  for (let position = 0; position < payload.length && payload[position] !== 0;) {
    const found = payload.indexOf(0, position + 1);
    const end = found < 0 ? payload.length : found;
    fields.set(payload.toString('latin1', position, position + 1), payload.toString('utf8', position + 1, end));
    position = end + 1;
  }
  return {
    severity: fields.get('V') ?? 'ERROR',
    code: fields.get('C') ?? 'XX000',
    message: fields.get('M') ?? '',
    detail: fields.get('D'),
    hint: fields.get('H'),
    where: fields.get('W'),
    routine: fields.get('R'),
  };
}
