/**
 * Splits SQL text into statements, as psql does: by semicolons outside of strings, quoted names, dollar quotes and
 * comments.  Used for sql/ (migrate, and the test that holds it to its whitelist) and by `bgw sql`.
 * Not handled, because nothing here needs it: BEGIN ATOMIC bodies and CREATE RULE with several actions.
 */

export interface Statement {
  /** From the first token to the last, without the semicolon and without comments around it. */
  text: string;
  /** Where `text` begins in the whole. */
  offset: number;
  /** The line of the first token, counted from 1. */
  line: number;
}

/** One lexical element that may hold a semicolon, or anything else; the order of the alternatives matters. */
const TOKEN = new RegExp(
  [
    String.raw`(?<space>\s+|--[^\n]*)`,
    String.raw`(?<comment>\/\*)`,
    String.raw`(?<end>;)`,
    String.raw`[eE]'(?:[^'\\]|\\[^]|'')*(?:'|$)`,
    `'(?:[^']|'')*(?:'|$)`,
    `"(?:[^"]|"")*(?:"|$)`,
    String.raw`(?<tag>\$(?:[\p{L}_][\p{L}\p{N}_]*)?\$)`,
    // A whole word at a time: its end may look like the E of a string or the start of a dollar quote.
    String.raw`[\p{L}_][\p{L}\p{N}_$]*(?!')`,
    '[^]',
  ].join('|'),
  'uy',
);

export function splitStatements(sql: string): Statement[] {
  const statements: Statement[] = [];
  let start: number | undefined;
  let end = 0;
  const finish = (): void => {
    if (start !== undefined) statements.push({ text: sql.slice(start, end), offset: start, line: lineAt(sql, start) });
    start = undefined;
  };
  for (const token of tokens(sql)) {
    if (token.kind === 'end') finish();
    if (token.kind !== 'text') continue;
    start ??= token.from;
    end = token.to;
  }
  finish();
  return statements;
}

/** The number of the line, from 1, that the character at `offset` stands in. */
export function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split('\n').length;
}

function* tokens(sql: string): Generator<{ kind: 'text' | 'space' | 'end'; from: number; to: number }> {
  let from = 0;
  while (from < sql.length) {
    TOKEN.lastIndex = from;
    const match = TOKEN.exec(sql);
    const groups = match?.groups ?? {};
    let to = from + (match?.[0].length ?? 1);
    if (groups['comment'] !== undefined) to = endOfComment(sql, from);
    else if (groups['tag'] !== undefined) to = after(sql, groups['tag'], to);
    const isSpace = groups['space'] !== undefined || groups['comment'] !== undefined;
    yield { kind: isSpace ? 'space' : groups['end'] === undefined ? 'text' : 'end', from, to };
    from = to;
  }
}

/** Block comments nest, unlike in C. */
function endOfComment(sql: string, from: number): number {
  const mark = /\/\*|\*\//g;
  mark.lastIndex = from;
  let depth = 0;
  for (let match = mark.exec(sql); match !== null; match = mark.exec(sql)) {
    depth += match[0] === '/*' ? 1 : -1;
    if (depth === 0) return mark.lastIndex;
  }
  return sql.length;
}

function after(sql: string, tag: string, from: number): number {
  const at = sql.indexOf(tag, from);
  return at === -1 ? sql.length : at + tag.length;
}
