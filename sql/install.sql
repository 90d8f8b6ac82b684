-- pg-bgworker: everything re-creatable, in order.
--
-- A worker is a row of bgw.worker.  bgw_launch makes a row of bgw.process (not_yet_started) and rings.
-- A node asks bgw.take_orders what to do, does it, and says what happened with bgw.report.
-- Users call api/, read views/.  Nodes call control/.  Both use lookup/, which only reads, and compute/, which touches no table.
\ir retired.sql
\ir doorbell.sql                   -- bgw.ring: wake the nodes
\ir compute/units.sql              -- '10s', '64kB', enum, ranges -> value, with PostgreSQL's messages
\ir compute/restart.sql            -- how an attempt ended, and when to start again
\ir compute/parse_schedule.sql      -- the text of a schedule -> its parsed form, or one clear error
\ir compute/cron.sql               -- parsed schedule -> next time
\ir compute/schedule_policy.sql    -- the words of overlap and missed, and the next due time of a schedule
\ir compute/check_worker.sql       -- one validator for every way a definition arrives
\ir lookup/effective.sql           -- settings, nap time, database as they are now
\ir lookup/nodes.sql               -- which controllers are alive
\ir lookup/standby.sql             -- what belongs on a standby, and the lock that says it runs
\ir api/register.sql               -- bgw_register, bgw_unregister
\ir api/launch.sql                 -- bgw_launch, bgw_launch_sql: register one instance
\ir api/autostart.sql              -- the instance of a worker that starts by itself
\ir api/signal.sql                 -- bgw_signal, bgw_cancel, bgw_terminate, bgw_restart, bgw_set_latch
\ir api/worker_sets.sql            -- bgw_get_handle, bgw_signal_set, bgw_terminate_set: by set and key
\ir api/wait.sql                   -- bgw_get_pid, bgw_wait_for_startup, bgw_wait_for_shutdown
\ir api/settings.sql               -- bgw_define_setting, bgw_mark_guc_prefix_reserved, bgw_set_config, bgw_reset_config, bgw_reload_conf
\ir api/check_setting.sql          -- names, prefixes, values and check hooks; settings of one worker
\ir api/interrupt.sql              -- bgw_interrupt_database: make room for DROP DATABASE and its like
\ir api/next_run.sql               -- bgw_next_run, bgw_schedule_preview, bgw_schedule_validate
\ir api/define_schedule.sql        -- the row of a schedule, its worker, its validator
\ir api/schedule.sql               -- bgw_schedule and its like: launch by the clock
\ir control/check_node.sql         -- refuse a stale node, renew the lease of a live one
\ir control/stay_awake.sql         -- a node that looks by itself is not rung
\ir control/join_node.sql          -- bgw.join_node, resume_node, leave_node, register_session
\ir control/define_library.sql     -- what the init of a library defines
\ir control/adopt_processes.sql    -- what a node started before it could reach the database
\ir control/fence_node.sql         -- take over from a dead node
\ir control/notify_launcher.sql    -- tell the launcher of a start or an exit
\ir control/report.sql             -- what happened -> rows
\ir control/settle_plain_exits.sql -- those that most are, at half the cost
\ir control/judge_exits.sql        -- attempts that ended -> how, and when the process starts again
\ir control/settle_exits.sql       -- attempts that ended -> history, restart or gone
\ir control/claim_startable.sql    -- who starts now, on this node
\ir control/deliver_signals.sql    -- what users sent to this node's processes
\ir control/tick_schedules.sql     -- what is due: launched, coalesced, skipped or missed
\ir control/cover_databases.sql    -- scope every_database: databases that came and went
\ir control/interrupt_databases.sql -- what a node has to leave alone for a while
\ir control/complete_run.sql       -- mode atomic: completion in the transaction of the command
\ir control/keep_house.sql         -- partitions, bounds of history and log
\ir control/look.sql               -- what there is to do
\ir control/take_orders.sql        -- one node's next orders
\ir control/standby_workers.sql    -- what a controller runs while its server is a standby
\ir views/stat_activity.sql        -- bgw_stat_activity: what every worker is doing
\ir views/run_history.sql          -- bgw_run_history, bgw_log: how it went, what was said
\ir views/schedules.sql            -- bgw_schedules, bgw_schedule_history: what is launched by the clock
\ir views/settings.sql             -- bgw_settings: like pg_settings
\ir views/nodes.sql                -- bgw_nodes: who runs the workers
\ir views/standby.sql              -- bgw_stat_standby: what runs on this standby
\ir workers/hello_world.sql
\ir workers/hello_notify.sql
\ir workers/count_relations.sql
\ir workers/kill_idle.sql
\ir workers/auth_counter.sql
\ir workers/table_stats.sql
\ir workers/worker_spi.sql
