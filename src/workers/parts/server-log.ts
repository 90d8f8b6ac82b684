/** The server's log in its two formats for programs: complete records out of a piece of it.  Called by ../auth-counter.ts. */

/** The fields of a record that say what became of a login. */
export interface LogRecord {
  session: string;
  user: string;
  database: string;
  severity: string;
  sqlstate: string;
  message: string;
}

/** A format of the log: how the server calls it, and its complete records in a piece of it. */
export interface LogFormat {
  destination: string;
  extension: string;
  split: (bytes: Buffer) => { records: LogRecord[]; length: number };
}

export const JSONLOG: LogFormat = {
  destination: 'jsonlog',
  extension: 'json',
  split: (bytes) => {
    const length = bytes.lastIndexOf('\n') + 1;
    const lines = bytes.toString('utf8', 0, length).split('\n').filter(Boolean);
    return { length, records: lines.flatMap(fromJson) };
  },
};

export const CSVLOG: LogFormat = {
  destination: 'csvlog',
  extension: 'csv',
  split: (bytes) => {
    const records: LogRecord[] = [];
    let begin = 0;
    let isQuoted = false;
    for (let i = 0; i < bytes.length; i += 1) {
      if (bytes[i] === 0x22) isQuoted = !isQuoted;
      if (bytes[i] !== 0x0a || isQuoted) continue;
      records.push(fromCsv(bytes.toString('utf8', begin, i)));
      begin = i + 1;
    }
    return { length: begin, records };
  },
};

function fromJson(line: string): LogRecord[] {
  try {
    const record = JSON.parse(line) as Record<string, string | undefined>;
    return [
      {
        session: record['session_id'] ?? '',
        user: record['user'] ?? '',
        database: record['dbname'] ?? '',
        severity: record['error_severity'] ?? '',
        sqlstate: record['state_code'] ?? '',
        message: record['message'] ?? '',
      },
    ];
  } catch {
    return []; // What a crash of the server has cut off is no record.
  }
}

/** Columns 2, 3, 6, 12, 13 and 14 of csvlog. */
function fromCsv(line: string): LogRecord {
  const fields = [...line.matchAll(/("(?:[^"]|"")*"|[^,]*)(?:,|$)/g)]
    .slice(0, 14)
    .map(([, field = '']) => (field.startsWith('"') ? field.slice(1, -1).replaceAll('""', '"') : field));
  const [user = '', database = ''] = fields.slice(1, 3);
  const [session = ''] = fields.slice(5);
  const [severity = '', sqlstate = '', message = ''] = fields.slice(11, 14);
  return { session, user, database, severity, sqlstate, message };
}
