/** What processes cost, from /proc; undefined where it is not there. */
import { readdirSync, readFileSync } from 'node:fs';

/** What a tick of /proc/PID/stat is: USER_HZ, 100 on every Linux that Node.js runs on. */
const TICKS_PER_SECOND = 100;

interface Stat {
  parent: number;
  own: number;
  /** Of children that have ended and were waited for. */
  ended: number;
}

/** CPU seconds of the process and of all its descendants, also of those that have ended. */
export function cpuSeconds(pid: number): number | undefined {
  const stats = allStats();
  const first = stats.get(pid);
  if (first === undefined) return undefined;
  let ticks = 0;
  const count = (each: number, stat: Stat): void => {
    ticks += stat.own + stat.ended;
    for (const [child, childStat] of stats) if (childStat.parent === each) count(child, childStat);
  };
  count(pid, first);
  return ticks / TICKS_PER_SECOND;
}

/** Megabytes that are resident, of that process alone. */
export function residentMegabytes(pid: number): number | undefined {
  const kilobytes = read(`/proc/${pid}/status`)?.match(/VmRSS:\s+(\d+)/)?.[1];
  return kilobytes === undefined ? undefined : Math.round(Number(kilobytes) / 1024);
}

function allStats(): Map<number, Stat> {
  const stats = new Map<number, Stat>();
  for (const entry of listProc()) {
    // After the name, which may contain anything: state, parent, ..., utime, stime, cutime, cstime.
    const fields = read(`/proc/${entry}/stat`)?.split(') ').at(-1)?.split(' ').map(Number);
    const [parent = 0, own = 0, system = 0, ended = 0, endedSystem = 0] = [1, 11, 12, 13, 14].map((i) => fields?.[i]);
    if (fields) stats.set(Number(entry), { parent, own: own + system, ended: ended + endedSystem });
  }
  return stats;
}

function listProc(): string[] {
  try {
    return readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  } catch {
    return []; // not Linux
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined; // it has ended meanwhile
  }
}
