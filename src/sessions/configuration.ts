/**
 * The settings of workers in their sessions, and the names of a run.  A session is opened with those of the worker it is
 * opened for, as startup options: unlike what SET sets, they survive DISCARD ALL.  A run sets what is different for it.
 */
import type { SettingValue } from '../orders.ts';

/** What a session is opened with. */
export interface Opening {
  settings: readonly SettingValue[];
  /** Values of parameters that most of its runs will have. */
  names: Readonly<Record<string, string>>;
}

/** Bytes of startup options: the server takes a startup packet of 10,000. */
const LONGEST_OPTIONS = 6000;
/** Other bytes would be taken as they are, whatever the encoding of the database. */
const ASCII = /^[\t\n\r -~]*$/;

export class Configuration {
  /** Startup options; empty if there is nothing to set, or too much. */
  readonly options: string;
  readonly #opened: ReadonlyMap<string, string>;
  readonly #openedSettings: ReadonlySet<string>;
  /** By the list that orders of one batch share. */
  readonly #differences = new WeakMap<readonly SettingValue[], string>();

  constructor({ settings, names }: Opening) {
    const all = [...Object.entries(names), ...settings.map(({ name, shown }) => [name, shown] as const)];
    const plain = all.filter(([name, value]) => ASCII.test(name) && ASCII.test(value));
    const options = plain.map(([name, value]) => `-c ${name}=${value.replaceAll(/[\s\\]/g, '\\$&')}`).join(' ');
    const fits = options.length <= LONGEST_OPTIONS;
    this.options = fits ? options : '';
    this.#opened = new Map(fits ? plain : []);
    this.#openedSettings = new Set(settings.map(({ name }) => name).filter((name) => this.#opened.has(name)));
  }

  /** The statements that set those names that are not what the session was opened with. */
  naming(names: Readonly<Record<string, string>>): string[] {
    const statements: string[] = [];
    for (const [name, value] of Object.entries(names))
      if (this.#opened.get(name) !== value) statements.push(`SET ${name} = ${literal(value)}`);
    return statements;
  }

  /** The statement that sets what these settings have different; empty if there is nothing. */
  difference(settings: readonly SettingValue[]): string {
    let text = this.#differences.get(settings);
    if (text === undefined) {
      text = setting(this.#missing(settings));
      this.#differences.set(settings, text);
    }
    return text;
  }

  /** A setting that is no more reads as one that was reset. */
  #missing(settings: readonly SettingValue[]): Record<string, string> {
    const wanted = new Map(settings.map(({ name, shown }) => [name, shown]));
    for (const name of this.#openedSettings) if (!wanted.has(name)) wanted.set(name, '');
    return Object.fromEntries([...wanted].filter(([name, shown]) => this.#opened.get(name) !== shown));
  }
}

function setting(values: Record<string, string>): string {
  if (Object.keys(values).length === 0) return '';
  const object = literal(JSON.stringify(values));
  return `SELECT pg_catalog.count(pg_catalog.set_config(key, value, false)) FROM pg_catalog.json_each_text(${object})`;
}

/** Whatever standard_conforming_strings is in that session. */
export function literal(text: string): string {
  return `E'${/['\\]/.test(text) ? text.replaceAll(/['\\]/g, '$&$&') : text}'`;
}
