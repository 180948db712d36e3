-- In the transaction of a command that changes jobs. What the commit would refuse is refused at its row, so that the others can
-- be acted upon. It waits for a locked row, but not for ever: as long as lock_timeout says, which is what it returns, for people.
SET CONSTRAINTS ALL IMMEDIATE;
SELECT regexp_replace(set_config('lock_timeout', CASE current_setting('lock_timeout') WHEN '0' THEN '10s'
                                                 ELSE current_setting('lock_timeout') END, true),
                      '^([0-9]+)', E'\\1 ')
