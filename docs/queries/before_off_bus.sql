-- What a GPU said in the 30 minutes before it fell off the bus (DuckDB): every row of gpu_sample then, oldest first.
--
-- From event: XID 79, and gpu_fell_off_the_bus where the kernel said it without an XID; what follows within an hour of
-- another one of the same GPU belongs to that one. From gpu_sample: all columns; look first at read_us (reads that take
-- longer), row_status and fail_code (reads that fail), and at seconds_before for rows that are missing.
-- Limits: most GPUs fall off without a sign in their values. An event without a known GPU (device_id is null) is left out.
--
-- Put the place of the lake for LAKE.
WITH told AS (
    SELECT device_id, ts, lag(ts) OVER (PARTITION BY device_id ORDER BY ts) AS told_before
    FROM delta_scan('LAKE/event')
    WHERE ((event = 'xid' AND code = 79) OR event = 'gpu_fell_off_the_bus') AND device_id IS NOT NULL
),
fallen AS (
    SELECT device_id, ts AS fell_at
    FROM told
    WHERE told_before IS NULL OR ts > told_before + INTERVAL '1' HOUR
)
SELECT fell_at, round(epoch(fell_at - sample.ts), 3) AS seconds_before, sample.*
FROM fallen
JOIN delta_scan('LAKE/gpu_sample') AS sample
  ON sample.device_id = fallen.device_id
 -- dt says the same as ts, and lets the reader pass over whole days.
 AND sample.dt BETWEEN CAST(fell_at AS DATE) - 1 AND CAST(fell_at AS DATE)
 AND sample.ts >= fell_at - INTERVAL '30' MINUTE
 AND sample.ts <= fell_at
ORDER BY fallen.device_id, fell_at, sample.ts;
