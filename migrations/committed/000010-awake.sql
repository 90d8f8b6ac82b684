--! Previous: sha1:c63f5996223a00a33309069c73fa37460536e17f
--! Hash: sha1:6c364e961a14c8b1a3a69690878d9dc031e1271a

-- A launch rings at commit, and not if every node says that it looks by itself (docs/decisions/0011-doorbell-at-commit.md).

ALTER TABLE bgw.node ADD COLUMN awake_until timestamptz, ADD COLUMN awake_since_handle bigint;
COMMENT ON COLUMN bgw.node.awake_until IS 'Until then, and a while after, it looks every few milliseconds by itself.  Written by stay_awake.';
COMMENT ON COLUMN bgw.node.awake_since_handle IS 'The newest handle when it last said so.  Written by stay_awake.';
GRANT SELECT (awake_until) ON bgw.node TO PUBLIC;

-- Volatile, and so evaluated when the event is queued: 100,000 launches of one transaction queue one.
CREATE FUNCTION bgw.arm_doorbell() RETURNS boolean LANGUAGE plpgsql AS
$$
BEGIN
    IF coalesce(pg_catalog.current_setting('bgw.doorbell', true), '') <> '' THEN
        RETURN false;
    END IF;
    PERFORM pg_catalog.set_config('bgw.doorbell', 'armed', true);
    RETURN true;
END;
$$;
COMMENT ON FUNCTION bgw.arm_doorbell() IS 'Whether this launch is the first of its transaction; a rolled-back savepoint takes that back.  Called by the trigger launch_rings.';

CREATE FUNCTION bgw.ring_at_commit() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM bgw.ring_unless_awake(); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER launch_rings AFTER INSERT ON bgw.process DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (bgw.arm_doorbell()) EXECUTE FUNCTION bgw.ring_at_commit();
