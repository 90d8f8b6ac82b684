--! Previous: sha1:e723a3e70d4b93b7e3a97db4fe74751072694481
--! Hash: sha1:d876992d59247961adc28542e24186bbe9a6107f

-- Failures are counted in the process: history is trimmed, and does not say which cancelled attempt was a failure.
ALTER TABLE bgw.process ADD COLUMN failed_at timestamptz[];
COMMENT ON COLUMN bgw.process.failed_at IS 'When it failed, oldest first: the last failure_limit times within failure_window.  NULL: never, or its worker has no failure_limit.  Written by settle_exits.';
