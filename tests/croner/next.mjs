// Reads a JSON array of {schedule, timezone, from, n}, prints an array of arrays: the next n times of each, in UTC.
import { readFileSync } from "node:fs";
import { Cron } from "croner";

const asked = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(asked.map(({ schedule, timezone, from, n }) =>
    new Cron(schedule, { timezone, mode: "5-part", paused: true })
        .nextRuns(n, new Date(from)).map((time) => time.toISOString().replace(".000Z", "Z")))));
