/**
 * Where in the files of its library an error comes from, as its CONTEXT: history and log then say in which line.
 * PostgreSQL counterpart: error_context_stack.
 */
import { spawnSync } from 'node:child_process';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describeError, type ErrorDescription } from '../errors.ts';

/** The innermost ones. */
const MOST_PLACES = 5;
/** An edited module is checked within moments. */
const CHECK_WITHIN = 5000;

/** What was thrown by a library, given the URL of its module. Never throws. */
export function describeThrown(error: unknown, library: string): ErrorDescription {
  const description = describeError(error);
  const places = placesOf(stackOf(error), library).slice(0, MOST_PLACES);
  const context = [description.context ?? [], places].flat().join('\n');
  return { ...description, context: context || undefined };
}

/** Says where the module of a library cannot be parsed: import() does not, if it is an ES module. */
export function locateSyntaxError(error: unknown, library: string): void {
  if (!(error instanceof SyntaxError) || HEAD.test(stackOf(error))) return;
  const check = ['--check', fileURLToPath(library)];
  const { stderr } = spawnSync(process.execPath, check, { encoding: 'utf8', timeout: CHECK_WITHIN });
  const head = HEAD.exec(stderr ?? '')?.[0];
  if (head) error.stack = head + stackOf(error);
}

/** Of a module that cannot be parsed, before its stack. */
const HEAD = /^(?:file:\/)?(?<file>\/.*):(?<line>\d+)\n/;
/** of V8: at async main (file:///workers/counter.js:12:5) */
const FRAME = /^ +at (?:async )?(?:(?<name>.*) \()?(?:file:\/)?(?<file>\/.*):(?<line>\d+):(?<column>\d+)\)?$/;

/** Those in the directory of the library: not those of packages, nor ours. */
function placesOf(stack: string, library: string): string[] {
  const directory = fileURLToPath(new URL('.', library));
  return [HEAD.exec(stack), ...stack.split('\n').map((line) => FRAME.exec(line))].flatMap((place) => {
    const { file = '', line, column, name } = place?.groups ?? {};
    const path = relative(directory, file.replace(/^\/\//, '/'));
    if (!file || path.startsWith('..') || path.includes('node_modules')) return [];
    const position = [path, line, column].filter(Boolean).join(':');
    return [!name || name.endsWith('<anonymous>') ? position : `function ${name} at ${position}`];
  });
}

function stackOf(error: unknown): string {
  try {
    const { stack } = error as { stack?: unknown };
    return typeof stack === 'string' ? stack : '';
  } catch {
    return ''; // it is null, or a getter of it throws
  }
}
