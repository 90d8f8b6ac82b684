/**
 * The settings of one worker: their values of now, checked, assigned and shown by the hooks that its library has defined.
 * A value that a check refuses at a reload is a WARNING, and the old one stays, as in PostgreSQL.
 * PostgreSQL counterpart: GucCheckHook, GucAssignHook, GucShowHook, ProcessConfigFile.
 */
import { BgwError, describeError, sqlstateOf } from '../errors.ts';
import type { SettingMessage } from './channel.ts';

export type GucValue = boolean | number | string;

/** Hooks of a setting, with values in its base unit. */
export interface GucHooks<Value> {
  /**
   * Refuses a value by throwing, or returns what to use in its place; returning nothing takes it as it is.  Of a BgwError the
   * user sees message, DETAIL and HINT; the message of another error becomes the DETAIL.  It runs for the boot value, which
   * must pass, when a worker starts (a refused value is a WARNING, and the boot value is used) and at each reload (the old one
   * is kept).  bgw_set_config does not run it: a check that refuses there is one in SQL.
   */
  // oxlint-disable-next-line typescript/no-invalid-void-type -- a check that only refuses returns nothing
  check?: (value: Value) => Value | void;
  /** Is given the value when a worker starts, and each new one. Not to throw: the value is taken over all the same. */
  assign?: (value: Value) => void;
  /** What `bgw.show` says. Default: as SHOW prints it. */
  show?: (value: Value) => string;
}

/** The hooks of a setting, and what it is when no other value passes. */
export interface GucEntry {
  boot: GucValue;
  hooks: GucHooks<GucValue>;
}

type SettingName = string | { readonly name: string };

interface Current {
  message: SettingMessage;
  value: GucValue;
  /** As SHOW prints it; of a value that a check has put in its place, in the base unit. */
  shown: string;
  /** What was refused, and kept this one: it comes again with each signal. */
  refused?: string | undefined;
}

export class Settings {
  readonly #warn: (error: unknown) => void;
  /** What is to be taken over. */
  #newMessages: readonly SettingMessage[] | undefined;
  #entries: ReadonlyMap<string, GucEntry> = new Map();
  #current = new Map<string, Current>();

  constructor(messages: readonly SettingMessage[], warn: (error: unknown) => void) {
    this.#newMessages = messages;
    this.#warn = warn;
  }

  /** The library is loaded: its hooks are known. */
  install(entries: ReadonlyMap<string, GucEntry>): void {
    this.#entries = entries;
    this.takeOver();
  }

  /** There are other values, to be taken over when the worker is ready for them. */
  reload(messages: readonly SettingMessage[]): void {
    this.#newMessages = messages;
  }

  takeOver(): void {
    const messages = this.#newMessages;
    if (!messages) return;
    const before = this.#current;
    this.#newMessages = undefined;
    this.#current = new Map(
      messages.map((message) => [message.name, this.#checked(message, before.get(message.name))]),
    );
    for (const [name, { value }] of this.#current) {
      if (before.get(name)?.value !== value) this.#assign(name, value);
    }
  }

  #assign(name: string, value: GucValue): void {
    try {
      this.#entries.get(name)?.hooks.assign?.(value);
    } catch (error) {
      this.#warn(error);
    }
  }

  /** Errors: 42704 there is no such setting. */
  value(setting: SettingName): GucValue {
    return this.#find(setting).value;
  }

  show(setting: SettingName): string {
    const { message, value, shown } = this.#find(setting);
    return this.#entries.get(message.name)?.hooks.show?.(value) ?? shown;
  }

  unit(setting: SettingName): string | undefined {
    return this.#find(setting).message.unit ?? undefined;
  }

  #find(setting: SettingName): Current {
    const name = typeof setting === 'string' ? setting : setting.name;
    const found = this.#current.get(name);
    if (found) return found;
    throw new BgwError('42704', { message: `unrecognized configuration parameter "${name}"` });
  }

  #checked(message: SettingMessage, before: Current | undefined): Current {
    const { name, vartype, setting } = message;
    if (before?.refused === setting) return before;
    if (before?.message.setting === setting) return { ...before, refused: undefined };
    const entry = this.#entries.get(name);
    try {
      const given = typedValue(vartype, setting);
      const value = checkValue(name, given, entry?.hooks.check);
      return { message, value, shown: value === given ? (message.shown ?? setting) : textOf(value) };
    } catch (error) {
      this.#warn(error);
      if (before) return { ...before, refused: setting };
      const boot = entry?.boot ?? '';
      return { message: { ...message, setting: textOf(boot) }, value: boot, shown: textOf(boot), refused: setting };
    }
  }
}

/** The value that a check lets pass. Errors: 22023, or what the check says. */
export function checkValue<Value extends GucValue>(name: string, value: Value, check: GucHooks<Value>['check']): Value {
  try {
    const checked = check?.(value) ?? value;
    if (typeof checked === typeof value) return checked;
    throw new TypeError(`The check returned a value of type ${typeof checked} in place of ${typeof value}.`);
  } catch (error) {
    const described = describeError(error);
    // Not instanceof: a library may have a copy of the package of its own.
    if (sqlstateOf(described) !== undefined) throw error;
    throw new BgwError('22023', {
      message: `invalid value for parameter "${name}": "${textOf(value)}"`,
      detail: described.message,
      cause: error,
    });
  }
}

/** A setting from its text in the base unit. */
export function typedValue(vartype: string, setting: string): GucValue {
  if (vartype === 'bool') return setting === 'on';
  return vartype === 'integer' || vartype === 'real' ? Number(setting) : setting;
}

/** The text in the base unit. */
export function textOf(value: GucValue): string {
  return typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value);
}
