-- bgw.ring: tell the nodes to look.  A doorbell with a constant payload: a notification says "look", never what.
-- Called by the functions of api/; for a launch by the trigger launch_rings, and only if some node is not awake: commits that
-- notify wait for each other.  Keeps I9: a launch commits with the notification queue full, or in a
-- two-phase commit after SET bgw.notify = off.  A ring that is lost costs one poll interval (I10).
-- Next: src/doorbell.ts on every node, then src/controller.ts.

CREATE OR REPLACE FUNCTION bgw.ring() RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF bgw.may_notify() THEN
        PERFORM pg_catalog.pg_notify('bgw', '');
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.ring() IS
'Wakes the nodes when the transaction commits.  Does nothing after SET bgw.notify = off, which a transaction that is to be prepared needs before its first launch, or while the
server''s notification queue is half full: the nodes then see the change at their next poll, within two seconds, or four if no process is registered.';

CREATE OR REPLACE FUNCTION bgw.may_notify() RETURNS boolean
LANGUAGE sql  -- inlined
AS $$
    -- A NOTIFY into a full queue would abort the transaction that commits it, hence the half.
    SELECT coalesce(pg_catalog.current_setting('bgw.notify', true), '') NOT IN ('off', 'false', '0', 'no')
       AND pg_catalog.pg_notification_queue_usage() < 0.5
$$;
COMMENT ON FUNCTION bgw.may_notify() IS 'Whether this transaction may send notifications: bgw.notify is not off, and the queue of the server not half full.';

CREATE OR REPLACE FUNCTION bgw.ring_unless_awake() RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    now timestamptz := bgw.now();
BEGIN
    -- In one statement, which each launch pays for.  A promise farther off than a node ever makes: the clock was set back.
    PERFORM pg_catalog.pg_notify('bgw', '') FROM bgw.node
    WHERE NOT node.fenced AND node.lease_until > now AND (node.awake_until > now AND node.awake_until <= now + bgw.awake()) IS NOT TRUE AND bgw.may_notify();
    IF FOUND THEN
        RETURN true;
    ELSIF EXISTS (SELECT FROM bgw.node WHERE NOT node.fenced AND node.lease_until > now) THEN
        RETURN false;
    END IF;
    PERFORM bgw.ring();
    RETURN true;
END;
$$;
COMMENT ON FUNCTION bgw.ring_unless_awake() IS
'bgw.ring for a launch, unless there are nodes, and every one has said that it looks by itself: bgw.stay_awake.  A node that is not awake, of
whatever login, is rung.  Returns false if it has not rung.  Called by the trigger launch_rings: when the launch is made, and, after a false, again at commit.';

CREATE OR REPLACE FUNCTION bgw.awake() RETURNS interval
LANGUAGE sql IMMUTABLE
AS $$ SELECT interval '500 ms' $$;
COMMENT ON FUNCTION bgw.awake() IS 'How long a node that several backends ring looks by itself; prolonged while they go on.';
