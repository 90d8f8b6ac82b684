-- hello_notify: tells a channel which statements run longer than its nap time.
-- One statement that needs nothing of ours, since hello_notify.database may send it to a database without this catalog; and no
-- operator of whoever owns that database.
-- Try: LISTEN hello_notify; SELECT bgw_set_config('hello_notify.nap_time', '5s'), bgw_launch('hello_notify');

SELECT public.bgw_define_setting('hello_notify.nap_time', boot_val => '60', vartype => 'integer', unit => 's', min_val => 1, max_val => 3600,
    short_desc => 'Nap time between two looks, and the age from which a statement is reported.');
SELECT public.bgw_define_setting('hello_notify.database', boot_val => '', context => 'postmaster',
    short_desc => 'Database where NOTIFY is sent; empty: this one.');
SELECT public.bgw_define_setting('hello_notify.channel_name', boot_val => 'hello_notify',
    short_desc => 'Channel name of NOTIFY requests.');

SELECT public.bgw_register(
    name => 'hello_notify',
    command => $$
        SELECT pg_catalog.pg_notify(
            pg_catalog.current_setting('hello_notify.channel_name'),
            pg_catalog.json_build_object('pid', pid, 'database', datname, 'username', usename, 'state', state, 'query', pg_catalog.left(query, 1000))::pg_catalog.text)
        FROM pg_catalog.pg_stat_activity
        WHERE state OPERATOR(pg_catalog.=) 'active' AND backend_type OPERATOR(pg_catalog.=) 'client backend' AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
          AND query_start OPERATOR(pg_catalog.<)
              (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.current_setting('hello_notify.nap_time')::pg_catalog.interval)
    $$,
    database => 'hello_notify.database',        -- the name of a setting, as naptime below
    naptime => 'hello_notify.nap_time',
    restart_time => '10 s',
    start_time => 'recovery_finished');
