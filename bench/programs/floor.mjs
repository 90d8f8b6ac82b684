/** The floor of a launcher: one connection that is notified, may claim a row, and says that it has seen the job. */
import pg from 'pg';

const { url, channel, claim, see } = JSON.parse(process.argv[2]);
const client = new pg.Client({ connectionString: url });
client.on('error', () => process.exit()); // the server has stopped, or the database is dropped
client.on('notification', ({ payload }) => void run(payload));
await client.connect();
await client.query(`LISTEN ${channel}`);
process.send('ready');

async function run(id) {
  if (claim !== undefined) await client.query(claim, [1]);
  await client.query(see, [id]);
  process.send('seen');
}
