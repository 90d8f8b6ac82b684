/** The least that a forked Node.js process does: connect, and run its first statement. */
import pg from 'pg';

const [url, id] = process.argv.slice(2);
const client = new pg.Client({ connectionString: url });
await client.connect();
await client.query('INSERT INTO bench.seen VALUES ($1, clock_timestamp())', [id]);
await client.end();
