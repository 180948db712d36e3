-- One line for now. It ends in `N left`: quickstart.sh waits for `0 left`.
SELECT format('%s  %s photos, %s documents done; %s running, %s to retry, %s failed, %s left',
              to_char(clock_timestamp(), 'HH24:MI:SS'),
              count(*) FILTER (WHERE state = 'completed' AND queue = 'photos'),
              count(*) FILTER (WHERE state = 'completed' AND queue = 'documents'),
              count(*) FILTER (WHERE state = 'executing'),
              count(*) FILTER (WHERE state = 'retryable'),
              count(*) FILTER (WHERE state IN ('discarded', 'cancelled')),
              count(*) FILTER (WHERE state < 'completed'))
  FROM jobq.all_jobs;
