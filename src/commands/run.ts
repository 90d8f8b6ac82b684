/** `bgw run`: one node against a database that is there. */
import { hostname } from 'node:os';
import type { ClientConfig } from 'pg';
import type { Logger } from 'pino';
import { Catalog } from '../catalog.ts';
import { systemClock } from '../clock.ts';
import { Controller } from '../controller.ts';
import { isPassing } from '../errors.ts';
import { earlyOrders, loadLibraries, type LoadedLibrary } from '../libraries.ts';
import { logTo } from '../log.ts';
import { checkNotOlder } from '../migrate.ts';
import type { Observation, Observe } from '../observation.ts';
import type { SettingMessage } from '../sdk/channel.ts';

export interface RunOptions {
  connection: ClientConfig;
  libraryDirs: string[];
  preloadLibraries: string[];
  nodeName?: string | undefined;
  maxWorkerProcesses?: number | undefined;
  log: Logger;
  onReady?: (() => void) | undefined;
  /** Sees everything that the log sees, and more. */
  observe?: Observe | undefined;
}

/** Resolves when the node has stopped cleanly. */
export async function runController(options: RunOptions, signal: AbortSignal): Promise<void> {
  const { connection, libraryDirs, preloadLibraries, onReady } = options;
  const log = logTo(options.log);
  const observe: Observe = (observation) => {
    log(observation);
    options.observe?.(observation);
  };
  const earlier: Observation[] = [];
  const load = (settings: SettingMessage[]): Promise<LoadedLibrary[]> =>
    loadLibraries({
      directories: libraryDirs,
      preload: preloadLibraries,
      settings,
      observe: (observation) => {
        observe(observation);
        earlier.push(observation);
      },
    });
  const loadWithSettings = async (): Promise<LoadedLibrary[]> => load(await settingsAtStart(connection));
  let reloadLibraries: typeof loadWithSettings | undefined;
  const libraries = await loadWithSettings().catch(async (error: unknown) => {
    // Without the server there is nothing to do, but for workers of preloaded libraries that do not need it.
    if (!isPassing(error) || preloadLibraries.length === 0) throw error;
    reloadLibraries = loadWithSettings;
    return load([]);
  });
  const controller = new Controller({
    connection,
    nodeName: options.nodeName || hostname(), // an environment variable may be there and empty
    maxWorkerProcesses: options.maxWorkerProcesses ?? 8,
    libraries,
    early: earlyOrders(libraries, String(connection.database)),
    reloadLibraries,
    earlier,
    clock: systemClock,
    observe,
    onReady,
  });
  await controller.run(signal);
}

/** What the init of a library reads: the values that its settings have now. Throws WK304 if the schema is older than this. */
async function settingsAtStart(connection: ClientConfig): ReturnType<Catalog['settingsAtStart']> {
  const catalog = await Catalog.connect(connection, systemClock);
  try {
    checkNotOlder(await catalog.newestMigration());
    return await catalog.settingsAtStart();
  } finally {
    await catalog.close();
  }
}
