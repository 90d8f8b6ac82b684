/**
 * Builds src/ into dist/: what `npm run build`, and so `npm ci` in a clone (prepare) and `npm test`, run.
 * Plain JavaScript, because it also runs where the development dependencies are left out: there it does nothing.
 * Files are overwritten in place and only leftovers removed, so that a program started from dist/ keeps its files.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const dist = join(root, 'dist');

compile();
removeLeftovers(await bundleWorkers());
chmodSync(join(dist, 'cli.js'), 0o755);
linkOwnCommand();

function compile() {
  const tsc = findCompiler();
  if (tsc === undefined) {
    process.stderr.write('build: skipped, the development dependencies are not installed\n');
    process.exit(0);
  }
  const { status } = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

function findCompiler() {
  try {
    return join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin', 'tsc');
  } catch {
    return undefined;
  }
}

/**
 * What the process of a worker loads, in a few files in place of some thirty: it starts anew for each worker, and reads them
 * each time.  Returns what else than src/ has was written, relative to dist/.
 */
async function bundleWorkers() {
  const { build } = await import('esbuild');
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: ['main', 'shared-memory-main', 'index'].map((entry) => join('src', 'sdk', `${entry}.ts`)),
    outdir: join('dist', 'sdk'),
    chunkNames: 'shared-[hash]',
    bundle: true,
    splitting: true, // main and the library that it loads have to see the same BgwError
    packages: 'external',
    format: 'esm',
    platform: 'node',
    target: 'node20',
    metafile: true,
    logLevel: 'warning',
  });
  return new Set(Object.keys(metafile.outputs).map((output) => relative('dist', output)));
}

/** A module that was renamed or removed in src/ must not be packed. */
function removeLeftovers(bundles) {
  for (const entry of readdirSync(dist, { recursive: true, encoding: 'utf8' })) {
    const source = entry.replace(/\.(js|d\.ts)(\.map)?$/, '.ts');
    if (!bundles.has(entry) && !existsSync(join(root, 'src', source)))
      rmSync(join(dist, entry), { recursive: true, force: true });
  }
}

/** npm links the commands of dependencies only; `npx bgw` in a clone needs the package's own one. */
function linkOwnCommand() {
  const commands = join(root, 'node_modules', '.bin');
  const link = join(commands, 'bgw');
  if (process.platform === 'win32' || existsSync(link)) return;
  mkdirSync(commands, { recursive: true });
  rmSync(link, { force: true });
  symlinkSync(join('..', '..', 'dist', 'cli.js'), link);
}
