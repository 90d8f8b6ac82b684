/** What a worker prints, as lines of the log: bounded, so that one that prints without end does not keep the node from its work (I13). */
import type { Readable } from 'node:stream';
import type { Clock } from '../clock.ts';

/** A line that is longer is cut. */
const LONGEST_LINE = 8192;
/** Per second, from one stream of one worker. */
const MOST_LINES = 1000;

export interface OutputOptions {
  clock: Clock;
  line: (text: string) => void;
  /** So many bytes were left out: too many lines in a second. */
  leftOut: (bytes: number) => void;
}

/** Reads to the end of the stream. */
export async function readOutput(stream: Readable, { clock, line, leftOut }: OutputOptions): Promise<void> {
  let rest = '';
  let lines = 0;
  let secondEnds = 0;
  let bytes = 0;
  const say = (text: string): void => {
    if (clock.monotonic() >= secondEnds) {
      secondEnds = clock.monotonic() + 1000;
      lines = 0;
    }
    if ((lines += 1) <= MOST_LINES) line(text.slice(0, LONGEST_LINE));
    else bytes += Buffer.byteLength(text) + 1;
  };
  for await (const chunk of stream.setEncoding('utf8') as AsyncIterable<string>) {
    const [first = '', ...others] = chunk.split('\n');
    // Of a line that does not end, no more is kept than is shown.
    rest = (rest + first).slice(0, LONGEST_LINE);
    if (others.length === 0) continue;
    say(rest);
    rest = (others.pop() ?? '').slice(0, LONGEST_LINE);
    others.forEach(say);
  }
  if (rest !== '') say(rest);
  if (bytes > 0) leftOut(bytes);
}
