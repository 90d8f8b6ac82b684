/**
 * Stands between the socket of a worker's session and pg's parser while a command of a user runs: rows and COPY data are
 * dropped unread, and an error or notice is cut to a readable length.  Without it one value of 600 MB ends the process
 * (ERR_STRING_TOO_LONG in the socket's handler, where nobody can catch it), and so every worker of the node (I13).
 * Knows the frame of the protocol only: a type byte, a length, and the fields of an error.
 */
import type { Duplex } from 'node:stream';

const DATA_ROW = 0x44; // D
const COPY_DATA = 0x64; // d
const ERROR_RESPONSE = 0x45; // E
const NOTICE_RESPONSE = 0x4e; // N
const HEADER_LENGTH = 5;
/** What is kept of an error or notice, in bytes: more than anybody reads. */
const LONGEST_TEXT = 65_536;
/** The end of the field that was cut, and of the message; where the cut falls between two fields, pg passes over the second. */
const END_OF_CUT_MESSAGE = Buffer.alloc(2);

export class Guard {
  /** Whether rows are dropped: while a command of a user runs, whose rows nobody reads. */
  discarding = false;
  readonly #header = Buffer.alloc(HEADER_LENGTH);
  #headerLength = 0;
  /** Bytes of the current message still to come: to keep, then to drop. */
  #keep = 0;
  #drop = 0;
  #isCut = false;

  /** Puts a guard before everything that listens to the data of a stream. */
  static attach(stream: Duplex): Guard {
    const guard = new Guard();
    const listeners = stream.listeners('data') as ((data: Buffer) => void)[];
    stream.removeAllListeners('data');
    stream.on('data', (data: Buffer) => {
      const kept = guard.filter(data);
      if (kept.length > 0) for (const listener of listeners) listener(kept);
    });
    return guard;
  }

  /** What may pass of the next bytes of the stream. */
  filter(data: Buffer): Buffer {
    const kept: Buffer[] = [];
    for (let position = 0; position < data.length;) {
      if (this.#keep > 0) {
        const part = data.subarray(position, position + this.#keep);
        position += part.length;
        this.#pass(part, kept);
      } else if (this.#drop > 0) {
        const dropped = Math.min(this.#drop, data.length - position);
        position += dropped;
        this.#drop -= dropped;
      } else {
        position += this.#readHeader(data, position, kept);
      }
    }
    return kept.length === 1 ? (kept[0] ?? Buffer.alloc(0)) : Buffer.concat(kept);
  }

  #pass(part: Buffer, kept: Buffer[]): void {
    kept.push(part);
    this.#keep -= part.length;
    if (this.#keep > 0 || !this.#isCut) return;
    kept.push(END_OF_CUT_MESSAGE);
    this.#isCut = false;
  }

  #readHeader(data: Buffer, position: number, kept: Buffer[]): number {
    const taken = data.copy(this.#header, this.#headerLength, position, position + HEADER_LENGTH - this.#headerLength);
    this.#headerLength += taken;
    if (this.#headerLength === HEADER_LENGTH) {
      this.#headerLength = 0;
      this.#decide(kept);
    }
    return taken;
  }

  #decide(kept: Buffer[]): void {
    const type = this.#header[0];
    const length = this.#header.readInt32BE(1) - 4;
    if (this.discarding && (type === DATA_ROW || type === COPY_DATA)) {
      this.#drop = length;
      return;
    }
    const isText = type === ERROR_RESPONSE || type === NOTICE_RESPONSE;
    const header = Buffer.from(this.#header);
    this.#keep = length;
    if (isText && length > LONGEST_TEXT) {
      this.#isCut = true;
      this.#keep = LONGEST_TEXT;
      this.#drop = length - LONGEST_TEXT;
      header.writeInt32BE(LONGEST_TEXT + END_OF_CUT_MESSAGE.length + 4, 1);
    }
    kept.push(header);
  }
}
