-- A table as wide as the live one, which no node looks at: for bench latency's yardstick.
CREATE TABLE @schema@.bench_bare (LIKE @schema@.jobs INCLUDING ALL) WITH (fillfactor = 50)
