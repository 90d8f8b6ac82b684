/** Days on which a schedule does not run, where the clock is set. */
import { expect, test } from './support/database.ts';

test('a day that is left out takes nothing of the next one with it, whenever the clock is set', async ({ db }) => {
  for (const [timezone, text, exception, after, due] of [
    // Midnight to 01:00 is shown twice.
    ['America/Havana', '30 0 * * *', '2027-11-06', '2027-11-06 03:00Z', '2027-11-07 04:30Z'],
    ['America/Havana', '15 * * * *', '2027-11-06', '2027-11-06 03:30Z', '2027-11-07 04:15Z'],
    ['Atlantic/Azores', '30 0 * * *', '2027-10-30', '2027-10-30 00:00Z', '2027-10-31 00:30Z'],
    ['Atlantic/Azores', '*/30 * * * *', '2027-10-30', '2027-10-30 12:00Z', '2027-10-31 00:00Z'],
    // 23:00 is shown twice, midnight once; then a day without midnight; then one that is no day.
    ['America/Sao_Paulo', '*/30 * * * *', '2017-02-18', '2017-02-18 12:00Z', '2017-02-19 03:00Z'],
    ['America/Sao_Paulo', '*/30 * * * *', '2017-10-14', '2017-10-14 12:00Z', '2017-10-15 03:00Z'],
    ['Pacific/Apia', '0 12 * * *', '2011-12-29', '2011-12-29 12:00Z', '2011-12-30 10:00Z'],
    ['Europe/Berlin', '0 3 * * *', '2027-03-27', '2027-03-26 12:00Z', '2027-03-28 01:00Z'],
    // The clock goes back over midnight: what the excepted day shows again is left out too.
    ['America/St_Johns', '45 * * * *', '2006-10-28', '2006-10-28 12:00Z', '2006-10-29 04:15Z'],
  ] as const) {
    await db.query(`SELECT bgw_schedule('left_out', $1, 'SELECT 1', timezone => $2, exceptions => ARRAY[$3::date])`, [
      text,
      timezone,
      exception,
    ]);
    expect(
      await db.value(`SELECT bgw.next_due(definition, $1) = $2::timestamptz FROM bgw.schedule AS definition`, [
        after,
        due,
      ]),
      `${timezone} ${text}`,
    ).toBe(true);
  }
});
