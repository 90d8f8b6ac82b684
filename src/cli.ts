#!/usr/bin/env node
/**
 * The command line: argv becomes the options of one command.  Exit codes: 0, 1 for an error, 2 for a wrong command line.
 * Every option of a node has an environment variable BGW_*, which is how containers are configured.
 */
import { readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { Argument, Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { pino, type Logger } from 'pino';
import { chooseDatabase } from './commands/connect.ts';
import { importPgCron } from './commands/import-pg-cron.ts';
import { migrateDatabase } from './commands/migrate.ts';
import { runController } from './commands/run.ts';
import { stopOnSignal } from './commands/signals.ts';
import { runSql } from './commands/sql.ts';
import { showStatus } from './commands/status.ts';
import { up } from './commands/up.ts';
import { formatError } from './errors.ts';
import { findPackageRoot } from './package-root.ts';

const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'];

interface NodeOptions {
  libraryDir: string[];
  preloadLibrary: string[];
  nodeName?: string;
  maxWorkerProcesses: number;
  logLevel: string;
}

interface UrlOption {
  url?: string;
}

await main();

async function main(): Promise<void> {
  process.stdout.on('error', outputLost);
  process.stderr.on('error', () => undefined);
  try {
    await program().parseAsync();
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? 0 : 2;
    } else {
      process.stderr.write(`${formatError(error)}\n`);
      process.exitCode = 1;
    }
  }
}

/** Whoever reads it may go away, as `head` does and a terminal that is closed: the work goes on, and a node stops in order. */
function outputLost(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE' || error.code === 'EIO') return;
  process.stderr.write(`ERROR:  could not write the output: ${error.message}\n`);
  process.exitCode = 1;
}

function program(): Command {
  const bgw = new Command('bgw')
    .description('PostgreSQL background workers, driven from SQL')
    .version(packageVersion())
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'bgw: ')) });
  addNodeOptions(bgw.command('up'))
    .description('start a private PostgreSQL in .bgw/, install the schema and run a node')
    .addOption(new Option('--port <port>', 'port of the private server').env('BGW_PORT').argParser(wholeNumber(65_535)))
    .action(async (options: NodeOptions & { port?: number }) => {
      await up({ ...nodeOptions(options), port: options.port, say }, stopSignal());
    });
  addNodeOptions(withUrl(bgw.command('run')))
    .description('run a node against a database in which "bgw migrate" has been run')
    .action(async (options: NodeOptions & UrlOption) => {
      await runController({ ...nodeOptions(options), connection: chooseDatabase(options.url) }, stopSignal());
    });
  addDatabaseCommands(bgw);
  return bgw;
}

function addDatabaseCommands(bgw: Command): void {
  withUrl(bgw.command('migrate'))
    .description('install the schema in a database, or upgrade it')
    .option('--with-cron', "also install schema cron: pg_cron's interface, without pg_cron", false)
    .action(async ({ url, withCron }: UrlOption & { withCron: boolean }) => {
      await migrateDatabase({ connection: chooseDatabase(url), withCron, say });
    });
  withUrl(bgw.command('import'))
    .description('copy the jobs of a real pg_cron into schema cron')
    .addArgument(new Argument('<what>', 'what to import').choices(['pg_cron']))
    .option('--from <url>', "database that has pg_cron, instead of this server's cron.database_name")
    .option('--skip-refused', 'if some jobs cannot be imported, import the others', false)
    .action(
      async (_what: 'pg_cron', { url, from, skipRefused }: UrlOption & { from?: string; skipRefused: boolean }) => {
        const source = from === undefined ? undefined : chooseDatabase(from);
        await importPgCron({ connection: chooseDatabase(url), from: source, skipRefused, say });
      },
    );
  withUrl(bgw.command('sql'))
    .description('run SQL and print the results as psql does')
    .argument('[sql]', 'statements; standard input if absent')
    .action(async (sql: string | undefined, { url }: UrlOption) => {
      const { stdin: input, stdout: output, stderr: errors } = process;
      const code = await runSql({ connection: chooseDatabase(url), sql, input, output, errors });
      if (code !== 0) process.exitCode = code;
    });
  withUrl(bgw.command('status'))
    .description('show the nodes, and what every worker is doing')
    .option('--watch', 'show it again every two seconds', false)
    .action(async ({ url, watch }: UrlOption & { watch: boolean }) => {
      await showStatus({ connection: chooseDatabase(url), watch });
    });
}

function withUrl(command: Command): Command {
  return command.option('--url <url>', 'database, instead of DATABASE_URL or PGHOST, PGPORT, ...');
}

function addNodeOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--library-dir <dir>', 'directory of worker libraries; may be given more than once')
        .env('BGW_LIBRARY_DIR')
        .default([])
        .argParser(list(delimiter)),
    )
    .addOption(
      new Option('--preload-library <name>', 'library to initialize at start; may be given more than once')
        .env('BGW_PRELOAD_LIBRARY')
        .default([])
        .argParser(list(',')),
    )
    .addOption(new Option('--node-name <name>', 'name of this node').env('BGW_NODE_NAME'))
    .addOption(
      new Option('--max-worker-processes <n>', 'workers that this node runs at the same time')
        .env('BGW_MAX_WORKER_PROCESSES')
        .default(8)
        .argParser(wholeNumber(10_000)),
    )
    .addOption(
      new Option('--log-level <level>', 'least severe log lines to write')
        .env('BGW_LOG_LEVEL')
        .default('info')
        .choices(LOG_LEVELS),
    );
}

/** An option that is repeated on the command line, and separated in its environment variable. */
function list(separator: string): (value: string, previous: string[]) => string[] {
  return (value, previous) => [...previous, ...value.split(separator).filter((part) => part !== '')];
}

function wholeNumber(max: number): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (/^\d+$/.test(value) && number <= max) return number;
    throw new InvalidArgumentError(`It is not a whole number between 0 and ${max}.`);
  };
}

function nodeOptions(options: NodeOptions): {
  libraryDirs: string[];
  preloadLibraries: string[];
  nodeName: string | undefined;
  maxWorkerProcesses: number;
  log: Logger;
} {
  const { libraryDir: libraryDirs, preloadLibrary: preloadLibraries, nodeName, maxWorkerProcesses, logLevel } = options;
  // Standard output is for what the command says itself.
  const log = pino({ level: logLevel }, pino.destination(2));
  return { libraryDirs, preloadLibraries, nodeName, maxWorkerProcesses, log };
}

function stopSignal(): AbortSignal {
  return stopOnSignal((name) => say(`${name}: stopping; once more to stop at once`));
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function packageVersion(): string {
  const manifest = JSON.parse(readFileSync(join(findPackageRoot(), 'package.json'), 'utf8')) as { version: string };
  return manifest.version;
}
