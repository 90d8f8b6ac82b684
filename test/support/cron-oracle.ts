/**
 * When a cron schedule is due, found by walking: minute after minute of real time, beside a clock on the wall of the zone.
 * Written from the rules of docs/decisions/0008-cron-and-clocks.md and for clearness alone; it shares nothing with
 * sql/compute, and takes the zones from Node.js (ICU) rather than from the server.
 * Good for 1972 and later, when all offsets are whole minutes.
 */
const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const NAMES: Record<string, number> = Object.fromEntries([
  ...'jan feb mar apr may jun jul aug sep oct nov dec'.split(' ').map((name, index) => [name, index + 1]),
  ...'sun mon tue wed thu fri sat'.split(' ').map((name, index) => [name, index]),
]);

interface Cron {
  minutes: Set<number>;
  hours: Set<number>;
  days: Set<number | '$'>;
  months: Set<number>;
  weekdays: Set<number>;
  eitherDay: boolean;
  followsClock: boolean;
}

/** The first `count` times after `after` (ms since 1970), in ISO format; fewer if the next `years` years have fewer. */
export function dueTimes(expression: string, timezone: string, after: number, count: number, years = 30): string[] {
  const cron = read(expression);
  const due: string[] = [];
  const offset = offsetsOf(timezone);
  // Two days earlier, so that the walk knows what the clock has shown already.
  let minute = Math.floor(after / MINUTE) * MINUTE - 2 * DAY;
  let shown = minute + offset(minute);
  for (const end = after + years * 365 * DAY; minute < end && due.length < count; minute += MINUTE) {
    if (minute % DAY === 0 && noDateNear(cron, minute)) {
      do minute += DAY;
      while (minute < end && noDateNear(cron, minute));
      shown = minute - MINUTE + offset(minute - MINUTE);
    }
    const wall = minute + offset(minute);
    let matches = false;
    if (cron.followsClock) {
      matches = matchesMinute(cron, wall);
    } else {
      for (let skipped = shown + MINUTE; skipped <= wall; skipped += MINUTE) matches ||= matchesMinute(cron, skipped);
    }
    shown = Math.max(shown, wall);
    if (matches && minute > after) due.push(new Date(minute).toISOString());
  }
  return due;
}

/** Whether no clock can come upon a date that matches in this day of UTC: none is further off than a day and a half. */
function noDateNear(cron: Cron, midnight: number): boolean {
  for (let days = -2; days <= 3; days++) if (matchesDay(cron, midnight + days * DAY)) return false;
  return true;
}

function matchesMinute(cron: Cron, wall: number): boolean {
  const minute = Math.floor(wall / MINUTE) % (24 * 60);
  return cron.minutes.has(minute % 60) && cron.hours.has(Math.floor(minute / 60)) && matchesDay(cron, wall);
}

function matchesDay(cron: Cron, wall: number): boolean {
  const date = new Date(wall);
  if (!cron.months.has(date.getUTCMonth() + 1)) return false;
  const isLast = new Date(wall + DAY).getUTCDate() === 1;
  const day = cron.days.has(date.getUTCDate()) || (isLast && cron.days.has('$'));
  const weekday = cron.weekdays.has(date.getUTCDay());
  return cron.eitherDay ? day || weekday : day && weekday;
}

function read(expression: string): Cron {
  const [minute = '', hour = '', day = '', month = '', weekday = ''] = expression.split(' ');
  const star = (field: string): boolean => field.startsWith('*');
  return {
    minutes: values(minute, 0, 59),
    hours: values(hour, 0, 23),
    days: new Set<number | '$'>([
      ...values(
        day
          .split(',')
          .filter((item) => item !== '$')
          .join(','),
        1,
        31,
      ),
      ...(day.split(',').includes('$') ? (['$'] as const) : []),
    ]),
    months: values(month, 1, 12),
    weekdays: new Set([...values(weekday, 0, 7)].map((value) => value % 7)),
    eitherDay: !star(day) && !star(weekday),
    followsClock: star(minute) || star(hour),
  };
}

function values(field: string, low: number, high: number): Set<number> {
  const found = new Set<number>();
  for (const item of field.split(',').filter((text) => text !== '')) {
    const [span = '', step = '1'] = item.split('/');
    const [first = 0, last = first] =
      span === '*' ? [low, high] : span.split('-').map((word) => NAMES[word.toLowerCase()] ?? Number(word));
    for (let value = first; value <= last; value += Number(step)) found.add(value);
  }
  return found;
}

const caches = new Map<string, (at: number) => number>();

/** How far the zone's clock is ahead of UTC, in ms.  A zone changes at most once in a day, at a whole minute. */
function offsetsOf(timezone: string): (at: number) => number {
  const cached = caches.get(timezone);
  if (cached !== undefined) return cached;
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone: timezone,
    hourCycle: 'h23',
    ...{ year: 'numeric', month: 'numeric', day: 'numeric', hour: 'numeric', minute: 'numeric' },
  });
  const ask = (at: number): number => {
    const parts = Object.fromEntries(format.formatToParts(at).map(({ type, value }) => [type, Number(value)]));
    const { year = 0, month = 0, day = 0, hour = 0, minute = 0 } = parts;
    return Date.UTC(year, month - 1, day, hour, minute) - at;
  };
  const asked = new Map<number, number>();
  const exact = (at: number): number => {
    const known = asked.get(at) ?? ask(at);
    asked.set(at, known);
    return known;
  };
  const offset = (at: number): number => {
    const midnight = Math.floor(at / DAY) * DAY;
    const before = exact(midnight);
    return before === exact(midnight + DAY) ? before : exact(at);
  };
  caches.set(timezone, offset);
  return offset;
}
