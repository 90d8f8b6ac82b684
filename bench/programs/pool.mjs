/** What a plain program would do instead of workers on a nap: timers, and a pool of connections. */
import pg from 'pg';

const [url, workers, naptime] = process.argv.slice(2);
const pool = new pg.Pool({ connectionString: url, max: 5 });
for (let i = 0; i < Number(workers); i += 1) setInterval(() => void pool.query('SELECT 1'), Number(naptime));
