-- Requests to cancel that no running attempt answers to any more: cleaned up, or carried out. The answer says how many
-- jobs were cancelled so. With it goes the progress of attempts that have ended.
SELECT @schema@.cancel_again(), @schema@.sweep_progress()
