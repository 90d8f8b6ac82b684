/**
 * Worker libraries: the ES modules in the directories that the operator has listed.  SQL names one, never a path (A6).
 * Each but ours is loaded in a process of its own, so that what its init throws or never returns from stays its own problem.
 * PostgreSQL counterpart: dynamic_library_path, shared_preload_libraries, _PG_init.
 */
import { readdir } from 'node:fs/promises';
import { extname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { BgwError, describeError } from './errors.ts';
import { forkWorkerProcess } from './hosts/fork.ts';
import { exitOf } from './hosts/worker-process.ts';
import type { Observe } from './observation.ts';
import { localRunId, type StartOrder } from './orders.ts';
import type { SettingDefinition, SettingMessage, ToController, ToWorker, WorkerDefinition } from './sdk/channel.ts';
import { type Definitions, runInit } from './sdk/library.ts';

/** The directory of the workers that ship. */
const SHIPPED_URL = new URL('workers/', import.meta.url).href;
const SHIPPED = fileURLToPath(SHIPPED_URL);
const EXTENSIONS = import.meta.url.endsWith('.ts') ? ['.js', '.mjs', '.ts'] : ['.js', '.mjs'];
/** An init defines; it has nothing to wait for. */
const INIT_WITHIN = 15_000;

type InitMessage = ToWorker & { kind: 'init' };

export interface LibraryOptions {
  directories: readonly string[];
  /** Names that the operator wants loaded at start: their static workers are registered. */
  preload: readonly string[];
  /** Values that the catalog has for their settings. */
  settings: readonly SettingMessage[];
  observe: Observe;
  /** Milliseconds that each has to be loaded. */
  initWithin?: number;
}

export interface LoadedLibrary extends Definitions {
  name: string;
  url: string;
  /** Whether the operator has listed it with --preload-library. */
  preloaded: boolean;
}

/** Every library that could be loaded; what could not is observed. Errors: 22023 a directory cannot be read, 42704 a library to preload is not there. */
export async function loadLibraries({
  directories,
  preload,
  settings,
  observe,
  initWithin = INIT_WITHIN,
}: LibraryOptions): Promise<LoadedLibrary[]> {
  const files = await findLibraries([SHIPPED, ...directories]);
  const missing = preload.find((name) => !files.has(name));
  if (missing !== undefined) {
    throw new BgwError('42704', {
      message: `library "${missing}" does not exist`,
      detail: `Libraries: ${[...files.keys()].join(', ')}.`,
      hint: 'Name its directory with --library-dir.',
    });
  }
  const loaded = await Promise.all(
    [...files].map(async ([name, url]) => {
      const preloaded = preload.includes(name);
      try {
        const message: InitMessage = { kind: 'init', library: url, name, preloaded, settings: [...settings] };
        const definitions = await (url.startsWith(SHIPPED_URL)
          ? runInitHere(message)
          : runInitApart(message, initWithin));
        observe({
          kind: 'library_loaded',
          library: name,
          workers: definitions.workers.length,
          settings: definitions.settings.length,
        });
        return [{ name, url, preloaded, ...definitions }];
      } catch (error) {
        observe({ kind: 'library_failed', library: name, error: describeError(error) });
        return [];
      }
    }),
  );
  return loaded.flat();
}

/** Starts of what needs no database: workers of preloaded libraries with autostart and start time postmaster_start. */
export function earlyOrders(libraries: readonly LoadedLibrary[], database: string): StartOrder[] {
  return libraries
    .filter(({ preloaded }) => preloaded)
    .flatMap(({ workers, settings }) =>
      workers
        .filter((worker) => worker.autostart && worker.start_time === 'postmaster_start')
        .map((worker) => startOrder(worker, settings, database)),
    );
}

/** The start of a worker that the database does not know of yet: its settings have their boot values. */
function startOrder(worker: WorkerDefinition, settings: SettingDefinition[], database: string): StartOrder {
  const { name, library_name, function_name, flags, main_arg: mainArg } = worker;
  const localId = localRunId();
  return {
    kind: 'start',
    handle: localId,
    run_id: localId,
    name,
    database,
    main_arg: mainArg === undefined ? null : JSON.stringify(mainArg),
    command: null,
    mode: 'session',
    library_name,
    function_name,
    flags: [...flags],
    naptime: null,
    timeout: null,
    settings: settings.map(({ name: setting, vartype, unit = null, boot_val: value }) => ({
      name: setting,
      vartype,
      unit,
      setting: value,
      shown: value,
    })),
  };
}

/** Name -> URL of the module. A file my-worker.js is the library my_worker; a later directory does not replace an earlier one's. */
async function findLibraries(directories: readonly string[]): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const directory of directories) {
    for (const file of await list(directory)) {
      const extension = extname(file);
      const name = file.slice(0, -extension.length).replaceAll('-', '_');
      if (!EXTENSIONS.includes(extension) || file.endsWith('.d.ts') || !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) continue;
      if (!found.has(name)) found.set(name, pathToFileURL(join(resolve(directory), file)).href);
    }
  }
  return found;
}

async function list(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).toSorted();
  } catch (error) {
    throw new BgwError('22023', {
      message: `could not read library directory "${directory}": ${describeError(error).message}`,
      cause: error,
    });
  }
}

/** The workers that ship are ours: no process has to keep their init apart. */
async function runInitHere({ library, name, preloaded, settings }: InitMessage): Promise<Definitions> {
  const values = new Map(settings.map((setting) => [setting.name, setting.setting]));
  return runInit((await import(library)) as Record<string, unknown>, { name, preloaded, values }).definitions;
}

async function runInitApart(message: InitMessage, initWithin: number): Promise<Definitions> {
  const child = forkWorkerProcess();
  const timer = setTimeout(() => child.kill('SIGKILL'), initWithin);
  try {
    return await new Promise((fulfil, reject) => {
      child.on('message', (answer: ToController) => {
        if (answer.kind === 'defined') fulfil(answer);
        else if (answer.kind === 'failed')
          reject(new BgwError(answer.error.code ?? 'WK113', { ...answer.error, where: answer.error.context }));
      });
      exitOf(child).then(
        ({ code, signal }) =>
          reject(
            new BgwError('WK113', {
              message:
                signal === 'SIGKILL'
                  ? `init did not return within ${initWithin / 1000} s`
                  : `init ended its process with exit code ${code}`,
            }),
          ),
        reject,
      );
      child.stdout?.resume();
      child.stderr?.resume();
      child.send(message);
    });
  } finally {
    clearTimeout(timer);
    child.kill('SIGKILL');
  }
}
