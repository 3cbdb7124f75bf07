-- How often GPUs fail for good (DuckDB): XID 64 (remapping failed), 79 (fell off the bus), 95 (uncontained ECC error) and 140
-- (unrecovered ECC error) per 1000 GPU-days, by site, model, driver and month; where there were none too.
--
-- From event: xid rows with their code and device_id; the same code of one GPU within a minute is one failure. From device,
-- which has a row of each GPU every hour: the GPU-days, and which model and driver a GPU had when it failed.
-- Limits: an XID that no GPU is known for (device_id is null) and one from before the GPU's first row in device are not
-- counted. Few failures make a rate that chance moves much: look at failures and gpus_hit beside it. MIG instances are not
-- GPUs and left out.
--
-- Put the place of the lake for LAKE.
WITH seen AS (
    SELECT device_id, site, model, driver_version, ts,
           lead(ts) OVER (PARTITION BY device_id ORDER BY ts) AS next_ts
    FROM delta_scan('LAKE/device')
    WHERE device_kind = 'gpu'
),
hours AS (
    SELECT DISTINCT device_id, site, model, driver_version, date_trunc('hour', ts) AS hour FROM seen
),
exposure AS (
    SELECT site, model, driver_version, date_trunc('month', hour) AS month_begin, count(*) / 24.0 AS gpu_days
    FROM hours
    GROUP BY 1, 2, 3, 4
),
xids AS (
    SELECT device_id, code, ts, lag(ts) OVER (PARTITION BY device_id, code ORDER BY ts) AS same_before
    FROM delta_scan('LAKE/event')
    WHERE event = 'xid' AND code IN (64, 79, 95, 140) AND device_id IS NOT NULL
),
failures AS (
    SELECT seen.site, seen.model, seen.driver_version, date_trunc('month', xids.ts) AS month_begin,
           count(*) AS failures,
           count(DISTINCT xids.device_id) AS gpus_hit,
           string_agg(DISTINCT xids.device_id, ', ') AS device_ids
    FROM xids
    JOIN seen ON seen.device_id = xids.device_id AND xids.ts >= seen.ts
             AND (xids.ts < seen.next_ts OR seen.next_ts IS NULL)
    WHERE same_before IS NULL OR xids.ts > same_before + INTERVAL '1' MINUTE
    GROUP BY 1, 2, 3, 4
)
SELECT exposure.site, exposure.model, exposure.driver_version, CAST(exposure.month_begin AS DATE) AS month_begin,
       round(gpu_days, 2) AS gpu_days,
       coalesce(failures, 0) AS failures,
       coalesce(gpus_hit, 0) AS gpus_hit,
       round(1000 * coalesce(failures, 0) / gpu_days, 2) AS failures_per_1000_gpu_days,
       device_ids
FROM exposure
LEFT JOIN failures
  ON failures.site = exposure.site
 AND failures.model IS NOT DISTINCT FROM exposure.model
 AND failures.driver_version IS NOT DISTINCT FROM exposure.driver_version
 AND failures.month_begin = exposure.month_begin
ORDER BY failures_per_1000_gpu_days DESC, 1, 2, 3, 4;
