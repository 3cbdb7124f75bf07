-- Bursts of corrected memory errors (DuckDB): hours in which a GPU has corrected at least 10 ECC errors, and at least ten
-- times as many as in an hour of its own 30 days before.
--
-- From gpu_health: ecc_corrected_volatile, as differences within one (device_id, session_id); so a reload of the driver is no
-- fall, and what was counted before the collector came is no burst.
-- Limits: an error belongs to the hour of the reading that shows it, so after a gap all of the gap's errors do. A GPU with
-- less than 24 hours of readings before is not judged. A burst is a hint; in HBM it seldom foretells an uncorrected error.
--
-- Put the place of the lake for LAKE; for a large one narrow gpu_health by dt, to the days of interest and 30 before them.
WITH steps AS (
    SELECT site, node, device_id, ts,
           ecc_corrected_volatile
               - lag(ecc_corrected_volatile) OVER (PARTITION BY device_id, session_id ORDER BY ts) AS errors
    FROM delta_scan('LAKE/gpu_health')
    WHERE ecc_corrected_volatile IS NOT NULL
),
hours AS (
    SELECT site, node, device_id, date_trunc('hour', ts) AS hour, sum(errors) AS errors
    FROM steps
    WHERE errors >= 0
    GROUP BY 1, 2, 3, 4
),
rated AS (
    SELECT *, count(*) OVER month_before AS hours_before, avg(errors) OVER month_before AS per_hour_before
    FROM hours
    WINDOW month_before AS (
        PARTITION BY device_id ORDER BY hour
        RANGE BETWEEN INTERVAL '30' DAY PRECEDING AND INTERVAL '1' HOUR PRECEDING
    )
)
SELECT site, node, device_id, hour, errors, round(per_hour_before, 3) AS per_hour_before, hours_before
FROM rated
WHERE hours_before >= 24 AND errors >= 10 AND errors >= 10 * per_hour_before
ORDER BY errors DESC, device_id, hour;
