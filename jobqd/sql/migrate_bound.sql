-- Why no step runs here: something that a step of an earlier release made is bound to what another has planted. The first, and
-- how many there are.
WITH
@bound@
SELECT b.what, b.remedy, count(*) OVER () FROM bound b ORDER BY b.what LIMIT 1
