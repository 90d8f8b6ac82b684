-- Settings by example: bgw.parse_setting, bgw.show_setting.  The comparison with the server itself is test/units.test.ts.
WITH parsed (vartype, unit, min_val, max_val, enumvals, value, want) AS (
    VALUES ('integer', 's', '1', '3600', NULL::text[], '10', '10'),
           ('integer', 's', '1', '3600', NULL, '10s', '10'),
           ('integer', 's', '1', '3600', NULL, '10 s', '10'),
           ('integer', 's', '1', '3600', NULL, ' 10s ', '10'),
           ('integer', 's', '1', '3600', NULL, '0.5h', '1800'),
           ('integer', 's', '1', '3600', NULL, '1e1', '10'),
           ('integer', 's', '1', '3600', NULL, '0x10', '16'),
           ('integer', 's', '1', '3600', NULL, '010', '8'),
           ('integer', 's', '1', '3600', NULL, '2.5', '2'),
           ('integer', 's', '1', '3600', NULL, '3.5', '4'),
           ('integer', 's', '1', '3600', NULL, '1500ms', '2'),
           ('integer', 's', NULL, NULL, NULL, '1d', '86400'),
           ('integer', 'min', NULL, NULL, NULL, '90s', '2'),
           ('integer', 'h', NULL, NULL, NULL, '2d', '48'),
           ('integer', 'd', NULL, NULL, NULL, '48h', '2'),
           ('integer', 'us', NULL, NULL, NULL, '1.5ms', '1500'),
           ('integer', 'kB', NULL, NULL, NULL, '30.1GB', '31561728'),
           ('integer', 'B', NULL, NULL, NULL, '8kB', '8192'),
           ('integer', 'MB', NULL, NULL, NULL, '1GB', '1024'),
           ('integer', 'GB', NULL, NULL, NULL, '2TB', '2048'),
           ('integer', 'TB', NULL, NULL, NULL, '2048GB', '2'),
           ('integer', NULL, '-5', NULL, NULL, '-1', '-1'),
           ('real', 'ms', '0', '100', NULL, '500us', '0.5'),
           ('real', 'ms', '0', '100', NULL, '0.05s', '50'),
           ('real', NULL, NULL, NULL, NULL, '1234567', '1.23457e+06'),
           ('real', NULL, NULL, NULL, NULL, '0.00001', '1e-05'),
           ('real', NULL, NULL, NULL, NULL, '-0', '-0'),
           ('bool', NULL, NULL, NULL, NULL, 'TR', 'on'),
           ('bool', NULL, NULL, NULL, NULL, 'of', 'off'),
           ('bool', NULL, NULL, NULL, NULL, '1', 'on'),
           ('bool', NULL, NULL, NULL, NULL, '0', 'off'),
           ('enum', NULL, NULL, NULL, '{cancel,Terminate}', 'CANCEL', 'cancel'),
           ('enum', NULL, NULL, NULL, '{cancel,Terminate}', 'terminate', 'Terminate'),
           ('string', NULL, NULL, NULL, NULL, ' as it is ', ' as it is '),
           ('string', NULL, NULL, NULL, NULL, '', '')
), shown (vartype, unit, setting, want) AS (
    VALUES ('integer', 's', '10', '10s'),
           ('integer', 's', '3600', '1h'),
           ('integer', 's', '3601', '3601s'),
           ('integer', 's', '0', '0'),
           ('integer', 's', '-1', '-1'),
           ('integer', 'kB', '64', '64kB'),
           ('integer', 'kB', '1024', '1MB'),
           ('integer', 'kB', '2147483647', '2147483647kB'),
           ('integer', 'h', '48', '2d'),
           ('integer', NULL, '3600', '3600'),
           ('real', 'ms', '0.5', '500us'),
           ('real', 'ms', '1.5', '1500us'),
           ('real', 'ms', '0', '0'),
           ('real', NULL, '0.5', '0.5'),
           ('bool', NULL, 'on', 'on'),
           ('enum', NULL, 'cancel', 'cancel'),
           ('string', NULL, '60', '60'),
           ('string', NULL, NULL, NULL)
)
SELECT concat_ws(' ', 'set', vartype, unit, quote_literal(value)) AS case,
       bgw.parse_setting(
           name => 'a.b', vartype => vartype, unit => unit, min_val => min_val, max_val => max_val,
           enumvals => enumvals, value => value
       ) AS got,
       want
FROM parsed
UNION ALL
SELECT concat_ws(' ', 'show', vartype, unit, quote_literal(setting)),
       bgw.show_setting(vartype => vartype, unit => unit, setting => setting),
       want
FROM shown;
