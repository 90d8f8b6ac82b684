/** What an ordinary role, or the owner of the database, does to others: nothing that lends rights, and nothing that lasts (HARDENING A). */
import type pg from 'pg';
import { inject } from 'vitest';
import { migrate } from '../src/migrate.ts';
import { expect, nothingLeft, startController, test as controllerTest } from './support/controller.ts';
import { onServer, SPARED } from './support/database.ts';

/** A role without any rights of its own, connected. */
const test = controllerTest.extend<{ mallory: pg.Client }>({
  mallory: async ({ db }, use) => {
    const name = `${db.name}_mallory`;
    await onServer(`CREATE ROLE ${name} LOGIN PASSWORD 'mallory'`);
    const { hostname: host, port } = new URL(db.url);
    const client = await db.client({
      host,
      port: Number(port),
      user: name,
      password: 'mallory',
      database: db.name,
      connectionString: '',
      application_name: SPARED,
    });
    await use(client);
    await client.end();
    await db.query(`DROP OWNED BY ${name} CASCADE`);
    await onServer(`DROP ROLE ${name}`);
  },
});

test('a role that is set for the database is not that of the node, whose login it could go back to (I7)', async ({
  ordinary: { db, role },
}) => {
  await db.query(`ALTER DATABASE ${db.name} SET role = ${role}`);
  const url = new URL(inject('serverUrl'));
  url.pathname = db.name;
  const controller = await startController({ url: url.href });
  const superuser = await db.client({ connectionString: url.href });
  await superuser.query('SET ROLE NONE; CREATE TABLE ran_as (who text, login text)');
  expect((await superuser.query('SELECT login = session_user AS own FROM bgw_nodes')).rows).toEqual([{ own: true }]);
  await db.query(`SELECT bgw_launch_sql('RESET ROLE; CREATE ROLE bgw_never_made')`);
  for (const command of ['INSERT INTO ran_as VALUES (current_user, session_user)', 'RESET ROLE; TABLE ran_as']) {
    const { rows } = await superuser.query('SELECT bgw_launch_sql($1) AS handle', [command]);
    await controller.saw('worker_exited', { handle: String(rows[0].handle), exitCode: 0 });
  }
  expect((await superuser.query('SELECT count(*)::int AS n FROM ran_as WHERE who = login')).rows).toEqual([{ n: 1 }]);
  expect(await db.value('SELECT waiting_for FROM bgw_stat_activity WHERE handle IS NOT NULL')).toBe(
    `a controller that logs in as "${role}"`,
  );
  await superuser.end();
  await controller.stop();
  await db.query(`ALTER DATABASE ${db.name} RESET role`);
  await nothingLeft(db);
});

test('bgw migrate takes no operator from whoever comes first in the search_path of its database', async ({ db }) => {
  await db.query(`CREATE SCHEMA trap; CREATE TABLE trap.sprung (who text);
    CREATE FUNCTION trap.spring(integer, integer) RETURNS integer LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO trap.sprung VALUES (current_user); RETURN $1 OPERATOR(pg_catalog./) $2; END $$;
    CREATE OPERATOR trap./ (LEFTARG = integer, RIGHTARG = integer, FUNCTION = trap.spring);
    ALTER DATABASE ${db.name} SET search_path = trap, pg_catalog`);
  await migrate(await db.client());
  expect(await db.value('SELECT count(*)::int FROM trap.sprung')).toBe(0);
});
