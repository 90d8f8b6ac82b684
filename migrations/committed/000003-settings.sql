--! Previous: sha1:963637d4bd41a352a3297a0b11a2ae03084d69dc
--! Hash: sha1:416db0e326be64266555e9d483018d64637ecb5a

-- Settings: check hooks, values that one worker or one process has for itself, and prefixes that belong to somebody.

ALTER TABLE bgw.setting ADD COLUMN extra_desc text, ADD COLUMN check_hook text;
COMMENT ON COLUMN bgw.setting.check_hook IS 'Qualified name of a function (text) RETURNS text, by name and not by OID, so that pg_dump and pg_upgrade keep it.';

ALTER TABLE bgw.worker ADD COLUMN settings jsonb;
COMMENT ON COLUMN bgw.worker.settings IS 'Settings that this worker has for itself: name -> value as SHOW prints it.  They win over bgw_set_config.  Checked by trigger.';

ALTER TABLE bgw.process ADD COLUMN settings jsonb;
COMMENT ON COLUMN bgw.process.settings IS 'Settings that this process has for itself; they win over those of its worker.  Set at launch, checked by trigger.';

CREATE TABLE bgw.reserved_prefix (
    prefix text NOT NULL,
    owner oid NOT NULL DEFAULT bgw.current_owner(),
    PRIMARY KEY (prefix, owner),
    CONSTRAINT prefix_is_an_identifier CHECK (prefix ~ '^[a-z_][a-z0-9_$]*$')
);
COMMENT ON TABLE bgw.reserved_prefix IS
'Under these prefixes only the owners of a reservation may define settings.  Written by bgw_mark_guc_prefix_reserved.
A reservation binds everybody, so only the owner of the catalog may make one, and whom it grants INSERT; DELETE lifts it.';

CREATE FUNCTION bgw.check_setting_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NEW := bgw.check_setting(NEW); RETURN NEW; END $$;
CREATE TRIGGER setting_is_checked BEFORE INSERT OR UPDATE OF vartype, unit, min_val, max_val, enumvals, boot_val, context, setting, pending ON bgw.setting
    FOR EACH ROW EXECUTE FUNCTION bgw.check_setting_row();

CREATE FUNCTION bgw.check_settings_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NEW.settings := bgw.check_overrides(NEW.owner, NEW.settings); RETURN NEW; END $$;
CREATE TRIGGER settings_are_checked BEFORE INSERT OR UPDATE OF settings ON bgw.worker
    FOR EACH ROW WHEN (NEW.settings IS NOT NULL) EXECUTE FUNCTION bgw.check_settings_row();
-- After process_is_filled, which says who the owner is: triggers fire in the order of their names.
CREATE TRIGGER settings_are_checked BEFORE INSERT ON bgw.process
    FOR EACH ROW WHEN (NEW.settings IS NOT NULL) EXECUTE FUNCTION bgw.check_settings_row();

GRANT SELECT ON bgw.reserved_prefix TO PUBLIC;
GRANT INSERT (extra_desc, check_hook), UPDATE (extra_desc, check_hook) ON bgw.setting TO PUBLIC;
GRANT INSERT (settings), UPDATE (settings) ON bgw.worker TO PUBLIC;
GRANT INSERT (settings) ON bgw.process TO PUBLIC;
