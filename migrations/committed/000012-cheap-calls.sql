--! Previous: sha1:ac40dd82fdaaccd33c6f5887a21bce8e8720f5dc
--! Hash: sha1:2b501e5cf1aa4e9b9f2b2add1c5866720b0dd88a

-- What a single call costs.  The numbers are in bench/NOTES.md.

-- A launch rings at once where a node sleeps; only one that finds all awake looks again at commit, by the trigger.
CREATE OR REPLACE FUNCTION bgw.arm_doorbell() RETURNS boolean LANGUAGE plpgsql AS
$$
BEGIN
    RETURN CASE WHEN pg_catalog.current_setting('bgw.doorbell', true) <> '' THEN false
                ELSE pg_catalog.set_config('bgw.doorbell', CASE WHEN bgw.ring_unless_awake() THEN 'rung' ELSE 'armed' END, true) = 'armed' END;
END;
$$;
COMMENT ON FUNCTION bgw.arm_doorbell() IS 'Rings for the first launch of a transaction, or says that it has to be looked again at commit; a rolled-back savepoint takes either back.  Called by the trigger launch_rings.';
CREATE OR REPLACE FUNCTION bgw.ring_at_commit() RETURNS trigger LANGUAGE plpgsql AS
$$
BEGIN
    PERFORM pg_catalog.set_config('bgw.doorbell', '', true);  -- after SET CONSTRAINTS ALL IMMEDIATE the transaction may launch more
    PERFORM bgw.ring_unless_awake();
    RETURN NULL;
END;
$$;

CREATE OR REPLACE FUNCTION bgw.fill_process_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RETURN bgw.fill_process(NEW); END $$;

-- The last CHECKs: what nodes alone write, a few functions of control/, and each INSERT and UPDATE paid 6 us.
ALTER TABLE bgw.process
    DROP CONSTRAINT status_is_known,
    DROP CONSTRAINT only_a_claimed_process_has_started,
    DROP CONSTRAINT a_claim_names_its_node;

-- One row: a look at the table, and not at its index, which each launch would open.
ANALYZE bgw.login;
