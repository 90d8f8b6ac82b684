--! Previous: sha1:e723a3e70d4b93b7e3a97db4fe74751072694481
--! Hash: sha1:d47dcb0aeb98afe0f7e80aad1db6c5ac8ba97416

-- Failures are counted in the process: history is trimmed, and does not say which cancelled attempt was a failure.
ALTER TABLE bgw.process ADD COLUMN failed_at timestamptz[];
COMMENT ON COLUMN bgw.process.failed_at IS 'When it failed, oldest first: the last failure_limit times within failure_window.  NULL: never, or its worker has no failure_limit.  Written by settle_exits.';

-- retries of what was scheduled before: as bgw_schedule writes them now.
ALTER TABLE bgw.worker DISABLE TRIGGER USER;
UPDATE bgw.worker SET failure_window = '1000 years', healthy_time = '1000 years' WHERE made_by_schedule AND failure_limit IS NOT NULL;
ALTER TABLE bgw.worker ENABLE TRIGGER USER;
