/**
 * defineLibrary: what a library of workers exports.  Its init runs when a controller loads the library, and again in
 * every process of its workers, so that the settings it defines are at hand there.
 * PostgreSQL counterpart: _PG_init, DefineCustomXXXVariable, RegisterBackgroundWorker.
 */
import { BgwError } from '../errors.ts';
import type { SettingDefinition, WorkerDefinition } from './channel.ts';
import { locateSyntaxError } from './error-context.ts';
import { checkValue, type GucEntry, type GucHooks, type GucValue, textOf, typedValue } from './guc.ts';
import type { Worker } from './worker.ts';

/** The function of a worker: it runs until the worker is done. Returning is exit code 0, throwing is exit code 1. */
export type WorkerFunction = (bgw: Worker, arg: unknown) => Promise<void> | void;

/** A setting that init has defined; `bgw.guc(setting)` reads its value of now. */
export interface Guc<Value> {
  readonly name: string;
  /** What a value looks like; never there at run time. */
  readonly value?: Value;
}

/** When workers take over a changed setting: at once, or when the first controller starts. `internal` cannot be changed. */
export type GucContext = 'internal' | 'postmaster' | 'sighup';

export interface GucOptions<Value> extends GucHooks<Value> {
  /** Value while nobody has set another. */
  boot: Value;
  /** Default sighup. */
  context?: GucContext;
  /** One line, shown in bgw_settings. */
  description?: string;
}

export interface NumberGucOptions extends GucOptions<number> {
  min?: number;
  max?: number;
  /** Base unit of boot, min, max and the value: us, ms, s, min, h, d, B, kB, MB, GB or TB. */
  unit?: string;
}

export interface EnumGucOptions<Value extends string> extends GucOptions<Value> {
  options: readonly Value[];
}

/** What a worker is, when init registers it. */
export interface WorkerOptions {
  /** 1 to 63 bytes; what bgw_launch takes and ps shows. */
  name: string;
  /** An exported function of the library's module. */
  function: WorkerFunction;
  /** What several workers have in common (bgw_type). */
  type?: string;
  /**
   * Default ['backend_database_connection']; a worker without it has no sessions.  interruptible: it is ended when
   * somebody calls bgw_interrupt_database for the database it works in.  shmem_access: it has `bgw.shmem`, and is a thread of
   * the shared-memory host of its node; when one of these crashes, all are started again.
   */
  flags?: readonly ('backend_database_connection' | 'interruptible' | 'shmem_access')[];
  /**
   * Default recovery_finished.  consistent_state: with autostart, also on a standby, where its sessions are read-only.
   * postmaster_start: with autostart and --preload-library, before the database can be reached; needs `flags: []`.
   */
  startTime?: 'postmaster_start' | 'consistent_state' | 'recovery_finished';
  /** Seconds after a failure until it starts again; null: never. Default 60. */
  restartTime?: number | null;
  /** Seconds up to which the restart time doubles with each failure in a row. Default: it does not. */
  restartTimeMax?: number;
  /** After so many failures within failureWindow it is not started again. Default: any number. */
  failureLimit?: number;
  /** Seconds. Default 600. */
  failureWindow?: number;
  /** Seconds: a failure after having run for so long is the first of a new row. Default 60. */
  healthyTime?: number;
  /** Argument, unless bgw_launch gives another. */
  mainArg?: unknown;
  /** Registered whenever the first controller starts. Default false. */
  autostart?: boolean;
  /** How many may be registered at a time. Default: any number; 1 with autostart. */
  maxInstances?: number;
}

/** What init is given. */
export interface Init {
  /** Whether the operator has listed the library with --preload-library (process_shared_preload_libraries_in_progress). */
  readonly preloaded: boolean;
  /** The value of a setting of this library that the catalog has now, or its boot value. */
  current<Value>(guc: Guc<Value>): Value;
  defineBoolVariable(name: string, options: GucOptions<boolean>): Guc<boolean>;
  defineIntVariable(name: string, options: NumberGucOptions): Guc<number>;
  defineRealVariable(name: string, options: NumberGucOptions): Guc<number>;
  defineStringVariable(name: string, options: GucOptions<string>): Guc<string>;
  defineEnumVariable<Value extends string>(name: string, options: EnumGucOptions<Value>): Guc<Value>;
  /** Refuses settings PREFIX.x that this library has not defined (MarkGUCPrefixReserved). */
  markGucPrefixReserved(prefix: string): void;
  registerWorker(options: WorkerOptions): void;
}

export interface Library {
  readonly name: string;
  readonly init: (init: Init) => void;
}

/**
 * Names a library and says what it defines. The default export of its module.
 *
 * @example
 * export default defineLibrary('hello', (init) => {
 *   init.registerWorker({ name: 'hello', function: main, restartTime: 10 });
 * });
 * export async function main(bgw: Worker): Promise<void> { bgw.log('hello'); }
 */
export function defineLibrary(name: string, init: (init: Init) => void): Library {
  return { name, init };
}

/**
 * What the module of a library exports.  TypeScript writes CommonJS in a project that is not of the type module: import()
 * gives the exports of such a module as its default export.
 */
export async function importLibrary(url: string): Promise<Record<string, unknown>> {
  const module = (await import(url).catch((error: unknown) => {
    locateSyntaxError(error, url);
    throw error;
  })) as Record<string, unknown>;
  const exported = module['default'] as Record<string, unknown> | undefined;
  return exported?.['__esModule'] === true ? exported : module;
}

/**
 * Runs the init of a library and collects what it defines. Errors: WK111 it is not a library, WK112 a function is not exported,
 * WK113 init returned a promise, 22023 a worker cannot be, or the check of a setting refuses its boot value.
 */
export function runInit(
  module: Record<string, unknown>,
  { name, preloaded, values }: InitOptions,
): { definitions: Definitions; gucs: Map<string, GucEntry> } {
  const library = module['default'] as Partial<Library> | undefined;
  if (typeof library?.init !== 'function' || library.name !== name) {
    throw new BgwError('WK111', {
      message: `module of library "${name}" does not export that library`,
      hint: `Its default export has to be defineLibrary('${name}', ...).`,
    });
  }
  const definitions: Definitions = { settings: [], workers: [], prefixes: [] };
  const gucs = new Map<string, GucEntry>();
  const define = <Value extends GucValue>(
    vartype: SettingDefinition['vartype'],
    guc: string,
    options: GucOptions<Value>,
    more: Partial<SettingDefinition> = {},
  ): Guc<Value> => {
    definitions.settings.push({ ...definitionOf(guc, options), ...more, vartype });
    const boot = checkValue(guc, options.boot, options.check);
    gucs.set(guc, { boot, hooks: options as unknown as GucHooks<GucValue> });
    return { name: guc };
  };
  const returned: unknown = library.init({
    preloaded,
    current: (guc) => currentValue(definitions.settings, gucs, values, guc.name) as never,
    defineBoolVariable: (guc, options) => define('bool', guc, options),
    defineIntVariable: (guc, options) => define('integer', guc, options, range(options)),
    defineRealVariable: (guc, options) => define('real', guc, options, range(options)),
    defineStringVariable: (guc, options) => define('string', guc, options),
    defineEnumVariable: (guc, options) => define('enum', guc, options, { enumvals: options.options }),
    markGucPrefixReserved: (prefix) => definitions.prefixes.push(prefix),
    registerWorker: (options) => definitions.workers.push(workerOf(options, name, module)),
  });
  if (isThenable(returned)) throw asynchronous(name, returned);
  return { definitions, gucs };
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as Partial<PromiseLike<unknown>> | undefined)?.then === 'function';
}

/** What it defines after its first await, and what it throws then, would be lost. */
function asynchronous(name: string, returned: PromiseLike<unknown>): BgwError {
  void returned.then(undefined, () => undefined);
  return new BgwError('WK113', {
    message: `init of library "${name}" returned a promise; it has to be synchronous`,
    hint: 'Define settings and workers in init; do the rest in the function of a worker.',
  });
}

export interface InitOptions {
  name: string;
  preloaded: boolean;
  values: ReadonlyMap<string, string>;
}

export interface Definitions {
  settings: SettingDefinition[];
  workers: WorkerDefinition[];
  /** Of settings that nobody else may set. */
  prefixes: string[];
}

/** What the catalog has, if the check lets it pass. */
function currentValue(
  settings: readonly SettingDefinition[],
  gucs: ReadonlyMap<string, GucEntry>,
  values: ReadonlyMap<string, string>,
  name: string,
): GucValue | undefined {
  const entry = gucs.get(name);
  const vartype = settings.find((setting) => setting.name === name)?.vartype;
  const text = values.get(name);
  if (!entry || vartype === undefined || text === undefined) return entry?.boot;
  try {
    return checkValue(name, typedValue(vartype, text), entry.hooks.check);
  } catch {
    return entry.boot; // the worker says so when it starts
  }
}

function definitionOf(
  name: string,
  options: Omit<GucOptions<GucValue>, keyof GucHooks<GucValue>>,
): Omit<SettingDefinition, 'vartype'> {
  return {
    name,
    boot_val: textOf(options.boot),
    context: options.context ?? 'sighup',
    short_desc: options.description ?? '',
  };
}

function range({ unit, min, max }: NumberGucOptions): Pick<SettingDefinition, 'unit' | 'min_val' | 'max_val'> {
  return { unit, min_val: min, max_val: max };
}

function workerOf(options: WorkerOptions, libraryName: string, module: Record<string, unknown>): WorkerDefinition {
  const exported = Object.entries(module).find(([name, value]) => name !== 'default' && value === options.function);
  if (!exported) {
    throw new BgwError('WK112', {
      message: `library "${libraryName}": the function of worker "${options.name}" is not exported`,
      hint: 'Export it by name: its process has to find it.',
    });
  }
  const { restartTime = 60, autostart = false, flags = ['backend_database_connection'] } = options;
  // As the check of the catalog; a worker that starts before the catalog can be reached is checked here only.
  if (options.startTime === 'postmaster_start' && flags.includes('backend_database_connection')) {
    throw new BgwError('22023', {
      message: `worker "${options.name}": cannot request database access if starting at postmaster start`,
      hint: 'Register it with flags: [].',
    });
  }
  return {
    name: options.name,
    type: options.type,
    library_name: libraryName,
    function_name: exported[0],
    main_arg: options.mainArg,
    flags,
    start_time: options.startTime ?? 'recovery_finished',
    restart_time: seconds(restartTime),
    restart_time_max: seconds(options.restartTimeMax),
    failure_limit: options.failureLimit,
    failure_window: seconds(options.failureWindow),
    healthy_time: seconds(options.healthyTime),
    autostart,
    max_instances: options.maxInstances,
  };
}

function seconds(time: number | null | undefined): string | null {
  return time === null || time === undefined ? null : `${time} s`;
}
