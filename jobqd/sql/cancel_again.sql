-- The leader's sweep: requests to cancel that no running attempt answers to any more are carried out; the progress of attempts
-- that have ended goes; the ends of attempts that the database refused are recorded, where it takes them now. How many jobs
-- were cancelled, and what to tell of attempts that were recorded.
SELECT s.cancelled, coalesce(s.stories::text, '') AS stories FROM @schema@._sweep() s
