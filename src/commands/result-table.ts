/** Query results and errors as psql prints them in its aligned format. */
import type { FieldDef } from 'pg';

/** The types whose values psql aligns to the right, by oid. */
const RIGHT_ALIGNED = new Set([20, 21, 23, 26, 28, 29, 700, 701, 790, 1700, 5069]);

/** A table with header and row count, with a final newline and an empty line. NULL is shown as nothing. */
export function formatTable(fields: FieldDef[], rows: (string | null)[][]): string {
  const cells = rows.map((row) => row.map((value) => (value ?? '').split('\n')));
  const widths = fields.map(({ name }, column) =>
    Math.max(width(name), ...cells.flatMap((row) => row[column] ?? []).map((line) => width(line))),
  );
  const header = fields.map(({ name }, column) => ` ${centered(name, widths[column] ?? 0)} `).join('|');
  const rule = widths.map((columnWidth) => '-'.repeat(columnWidth + 2)).join('+');
  const body = cells.flatMap((row) => formatRow(row, fields, widths));
  const count = `(${rows.length} row${rows.length === 1 ? '' : 's'})`;
  return [header, rule, ...body, count, '', ''].join('\n');
}

/** A value of several lines continues below itself, with a + at the end of each line but its last. */
function formatRow(row: string[][], fields: FieldDef[], widths: number[]): string[] {
  const height = Math.max(1, ...row.map((lines) => lines.length));
  return Array.from({ length: height }, (_, line) => {
    const parts = row.map((lines, column) => {
      const isLast = column === row.length - 1;
      const text = lines[line];
      // psql ends a line where nothing follows: numbers and continued lines fill their column, other texts do not.
      if (text === undefined && isLast) return ' ';
      const gap = ' '.repeat((widths[column] ?? 0) - width(text ?? ''));
      const isNumber = RIGHT_ALIGNED.has(fields[column]?.dataTypeID ?? 0);
      const isContinued = line < lines.length - 1;
      const mark = isContinued ? '+' : isLast ? '' : ' ';
      if (isNumber) return ` ${gap}${text ?? ''}${mark}`;
      return mark === '' ? ` ${text}` : ` ${text ?? ''}${gap}${mark}`;
    });
    return parts.join('|');
  });
}

function centered(text: string, columnWidth: number): string {
  const gap = columnWidth - width(text);
  const left = Math.floor(gap / 2);
  return ' '.repeat(left) + text + ' '.repeat(gap - left);
}

const COMBINING = /\p{Mn}|\p{Me}|\p{Cf}/u;
const WIDE =
  /\p{Emoji_Presentation}|[\u1100-\u115F\u2E80-\uA4CF\uAC00-\uD7A3\uF900-\uFAFF\uFF00-\uFF60\u{20000}-\u{3FFFD}]/u;

/** Columns on a terminal: combining marks take none, East Asian characters and pictures two. */
function width(text: string): number {
  let columns = 0;
  for (const character of text) {
    if (!COMBINING.test(character)) columns += WIDE.test(character) ? 2 : 1;
  }
  return columns;
}
