-- Whether a claim takes job `l`: it is available, and has not expired before its first attempt. Where a claim looks, the
-- columns of the index jobs_claim, is not part of this.
l.state = 'available' AND (l.expires_at IS NULL OR l.expires_at > now() OR l.attempt > 0)
