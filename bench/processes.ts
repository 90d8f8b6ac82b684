/** What processes cost, from /proc; undefined where it is not there. */
import { readdirSync, readFileSync } from 'node:fs';

/** What a tick of /proc/PID/stat is: USER_HZ, 100 on every Linux that Node.js runs on. */
const TICKS_PER_SECOND = 100;

/** CPU seconds of the process and of all its descendants, also of those that have ended. */
export function cpuSeconds(pid: number): number | undefined {
  const parents = new Map(processIds().map((id) => [id, Number(statFields(id)?.[1])]));
  if (!parents.has(pid)) return undefined;
  const family = (id: number): number[] => [
    id,
    ...[...parents].filter(([, up]) => up === id).flatMap(([child]) => family(child)),
  ];
  return family(pid).reduce((seconds, id) => seconds + ownSeconds(id) + endedSeconds(id), 0);
}

/** In nanoseconds where the kernel says so: a backend that naps uses less than a tick for minutes. */
function ownSeconds(pid: number): number {
  const threads = list(`/proc/${pid}/task`).map((thread) => read(`/proc/${pid}/task/${thread}/schedstat`));
  if (threads.length > 0 && threads.every((stat) => stat !== undefined))
    return threads.reduce((seconds, stat) => seconds + Number(stat?.split(' ')[0]) / 1e9, 0);
  return ticks(pid, 11, 12);
}

/** Of children that have ended and were waited for. */
const endedSeconds = (pid: number): number => ticks(pid, 13, 14);

function ticks(pid: number, user: number, system: number): number {
  const fields = statFields(pid);
  return (Number(fields?.[user] ?? 0) + Number(fields?.[system] ?? 0)) / TICKS_PER_SECOND;
}

/** After the name, which may contain anything: state, parent, ..., utime, stime, cutime, cstime. */
const statFields = (pid: number): string[] | undefined => read(`/proc/${pid}/stat`)?.split(') ').at(-1)?.split(' ');

/** Megabytes that are resident, of that process alone. */
export function residentMegabytes(pid: number): number | undefined {
  const kilobytes = read(`/proc/${pid}/status`)?.match(/VmRSS:\s+(\d+)/)?.[1];
  return kilobytes === undefined ? undefined : Math.round(Number(kilobytes) / 1024);
}

const processIds = (): number[] => list('/proc').map(Number).filter(Number.isInteger);

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return []; // not Linux, or it has ended meanwhile
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined; // it has ended meanwhile
  }
}
