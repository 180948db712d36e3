-- Requests to cancel that no running attempt answers to any more: cleaned up, or carried out. The answer says how many
-- jobs were cancelled so.
SELECT @schema@.cancel_again()
