-- count_relations: logs each second how many relations the database has.
-- Try: SELECT bgw_launch('count_relations');

SELECT public.bgw_register(
    name => 'count_relations',
    command => $$DO 'BEGIN RAISE LOG ''Currently % relations in database'', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class); END'$$,
    naptime => '1 s',
    restart_time => '-1',                       -- never
    start_time => 'recovery_finished');
