/**
 * The two unions of the protocol: Order, what a node is told by bgw.take_orders, and Event, what it tells bgw.report.
 * Handles and run ids are bigint in SQL and strings here: they are names, never numbers.
 */
import type { Clock } from './clock.ts';
import { type ErrorDescription, sqlstateOf } from './errors.ts';
import type { Severity } from './observation.ts';

/** A setting as a worker gets it. */
export interface SettingValue {
  name: string;
  vartype: 'bool' | 'integer' | 'real' | 'string' | 'enum';
  unit: string | null;
  /** In the base unit, as pg_settings.setting. */
  setting: string;
  /** As SHOW prints it. */
  shown: string;
}

interface Attempt {
  handle: string;
  run_id: string;
  settings: SettingValue[];
}

export interface StartOrder extends Attempt {
  kind: 'start';
  name: string;
  database: string;
  /** JSON as text, so that no number in it loses digits. */
  main_arg: string | null;
  command: string | null;
  mode: 'session' | 'atomic';
  library_name: string | null;
  function_name: string | null;
  flags: string[];
  /** Seconds; null: once. */
  naptime: number | null;
  /** Seconds; null: none. */
  timeout: number | null;
}

/** A process that the database has given to this node. */
export interface Claim {
  name: string;
  handle: string;
  run_id: string;
}

/** What a controller runs while its server is a standby. */
export interface StandbyAnswer {
  workers: (Omit<StandbyWorker, 'settings'> & { overrides: SettingValue[] | null })[];
  settings: SettingValue[];
}

/** A definition that belongs on a standby. */
export interface StandbyWorker extends Omit<StartOrder, 'kind' | 'handle' | 'run_id'> {
  id: string;
  /** Whether its library, database and nap time are there. */
  startable: boolean;
}

let lastLocalRun = 0;

/** A name for what runs without a claim of the database: negative, so that it is no run id or handle of anybody's. */
export function localRunId(): string {
  lastLocalRun += 1;
  return String(-lastLocalRun);
}

export type SignalName = 'SIGHUP' | 'SIGINT' | 'SIGTERM' | 'SIGUSR1';

export interface SignalOrder extends Attempt {
  kind: 'signal';
  signal: SignalName;
  /** With SIGHUP: the nap time and command of now. */
  naptime?: number | null;
  command?: string | null;
}

/** Sessions that nobody uses leave the database: somebody wants to drop, rename or copy it. */
export interface LeaveOrder {
  kind: 'leave';
  database: string;
}

export type Order = StartOrder | SignalOrder | LeaveOrder;

/** How an attempt ended. */
export interface Exit {
  /** null: killed. */
  exit_code: number | null;
  command_tag?: string | undefined;
  rows?: number | undefined;
  error?: ErrorDescription | undefined;
  /** How long a one-shot ran; a short one is over before its start is worth an event. */
  ran_ms?: number | undefined;
  /** The backend that it ran in. */
  session_pid?: number | undefined;
  /** It was ended before it had a session to begin in. */
  unbegun?: boolean | undefined;
  /** Its work was finished before anybody could end it. */
  done?: boolean | undefined;
  /** Of an atomic run whose session was lost: the database finds out whether it has committed. */
  undecided?: boolean | undefined;
  /** The controller is stopping; false: it had ended before. */
  interrupted?: boolean | undefined;
  /** Its timeout ended it. */
  expired?: boolean | undefined;
  /** A shared-memory worker that crashed, or was ended because another one did: it starts again at once. */
  crash_reset?: boolean | undefined;
}

export type Event = { at: number } & (
  | { kind: 'started'; handle: string; run_id: string; os_pid?: number | undefined }
  | { kind: 'session'; handle: string; run_id: string; pid: number | null; backend_start: string | null }
  | { kind: 'activity'; handle: string; run_id: string; state: string; query: string | null }
  | {
      kind: 'log';
      handle?: string | undefined;
      name?: string | undefined;
      severity: Severity;
      sqlstate?: string | undefined;
      message: string;
      detail?: string | undefined;
      hint?: string | undefined;
      context?: string | undefined;
    }
  /** It was claimed and has not started: it waits again. */
  | { kind: 'returned'; handle: string; run_id: string }
  | { kind: 'session_closed'; pid: number }
  | ({ kind: 'exited'; handle: string; run_id: string } & Exit)
);

/** An order as the database sends it: without the settings of the login, with those that its process has for itself. */
type Sent<Given> = Given extends Attempt ? Omit<Given, 'settings'> & { overrides: SettingValue[] | null } : Given;

interface Answer {
  orders: Sent<Order>[][];
  settings: SettingValue[] | null;
  first_turn: number | null;
  wake_ms: number;
}

/** What a node is to do, and in how many milliseconds to ask again. */
export interface Answered {
  orders: Order[];
  wakeMs: number;
  /** The earliest turn of what was claimed and takes a slot; null: nothing was. */
  firstTurn: number | null;
}

/** What bgw.take_orders answered; each order with the settings of its process. */
export function decodeOrders(text: string): Answered {
  const answer = JSON.parse(text) as Answer;
  const settings = answer.settings ?? [];
  const orders = answer.orders.flat().map((given): Order => {
    if (given.kind === 'leave') return given;
    // Not copied: there are hundreds.
    const order = given as typeof given & { settings: SettingValue[] };
    order.settings = override(settings, given.overrides);
    return order;
  });
  return { orders, wakeMs: answer.wake_ms, firstTurn: answer.first_turn };
}

/** What bgw.standby_workers answered: definitions, each with the settings of its worker. */
export function decodeStandbyWorkers({ workers, settings }: StandbyAnswer): StandbyWorker[] {
  return workers.map(({ overrides, ...worker }) => ({ ...worker, settings: override(settings, overrides) }));
}

function override(settings: SettingValue[], overrides: SettingValue[] | null): SettingValue[] {
  if (!overrides) return settings;
  const own = new Map(overrides.map((setting) => [setting.name, setting]));
  return settings.map((setting) => own.get(setting.name) ?? setting);
}

/** Events as bgw.report takes them: a list for each kind, and ages instead of times, since only the clock of the server counts. */
export function encodeEvents(events: readonly Event[], clock: Clock): string {
  const now = clock.monotonic();
  const lists: Partial<Record<Event['kind'], unknown[]>> = {};
  for (const event of events) (lists[event.kind] ??= []).push(flatten(event, now));
  return JSON.stringify(lists);
}

/** What every encoding of a database has: other characters by their number. */
export function inAscii(json: string): string {
  return json.replaceAll(/[\u{80}-\u{10ffff}]/gu, (character) => `\\\\u{${character.codePointAt(0)?.toString(16)}}`);
}

function flatten(event: Event, now: number): Record<string, unknown> {
  const flat: Record<string, unknown> = { ...event, kind: undefined, at: undefined, age: Math.max(0, now - event.at) };
  if (event.kind === 'exited') {
    const { error } = event;
    if (!error) return flat; // most are of that kind, and hold no word of a worker
    const { message, detail, hint, context } = error;
    Object.assign(flat, { error: undefined, sqlstate: sqlstateOf(error), message, detail, hint, context });
  }
  for (const name in flat) {
    const value = flat[name];
    if (typeof value === 'string') flat[name] = storable(value);
  }
  return flat;
}

/** The longest text of a report: a worker that raises 50 MB must not fill the log with it (I13). */
const LONGEST_TEXT = 8192;

const UNSTORABLE = /[\0\ud800-\udfff]/;

/** What jsonb can hold: no NUL, no half surrogate pair (HARDENING E). */
function storable(text: string): string {
  if (text.length <= LONGEST_TEXT && !UNSTORABLE.test(text)) return text;
  const cut = text.length > LONGEST_TEXT ? `${text.slice(0, LONGEST_TEXT)} [...]` : text;
  return cut.replaceAll('\0', '\\0').toWellFormed();
}
