-- Hours in which GPUs were held back by heat or by the power brake, per GPU and week (DuckDB), and how much of their clock they
-- lost meanwhile; GPUs with less than 36 seconds of either are left out.
--
-- From gpu_sample: throttle_hw_thermal_nanoseconds, throttle_sw_thermal_nanoseconds and, on drivers without these,
-- throttle_thermal_nanoseconds; throttle_hw_power_brake_nanoseconds; as differences within one (device_id, session_id), so
-- that nothing between two samples is missed. sm_clock_megahertz against the sm_clock_max_megahertz of gpu_health.
-- Limits: the kinds of heat overlap, the longest of them counts. The lost clock is that of the sample that ends an interval.
-- Being held back by the power limit (throttle_power_nanoseconds) is normal work and not in here. NVIDIA GPUs only; AMD ones
-- count in ticks (amd_throttle_…_ticks over amd_residency_ticks).
--
-- Put the place of the lake for LAKE; for a large one narrow gpu_sample by dt.
WITH counters AS (
    -- The highest value before is the last one that was read: within a session counters only rise.
    SELECT site, node, device_id, ts, sm_clock_megahertz,
           throttle_hw_thermal_nanoseconds - max(throttle_hw_thermal_nanoseconds) OVER earlier AS hw_thermal,
           throttle_sw_thermal_nanoseconds - max(throttle_sw_thermal_nanoseconds) OVER earlier AS sw_thermal,
           throttle_thermal_nanoseconds - max(throttle_thermal_nanoseconds) OVER earlier AS thermal,
           throttle_hw_power_brake_nanoseconds - max(throttle_hw_power_brake_nanoseconds) OVER earlier AS power_brake
    FROM delta_scan('LAKE/gpu_sample')
    WINDOW earlier AS (
        PARTITION BY device_id, session_id ORDER BY ts ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )
),
clocks AS (
    SELECT device_id, max(sm_clock_max_megahertz) AS clock_max FROM delta_scan('LAKE/gpu_health') GROUP BY device_id
),
steps AS (
    SELECT site, node, counters.device_id, date_trunc('week', ts) AS week_begin,
           coalesce(greatest(hw_thermal, sw_thermal, thermal, 0), 0) / 3.6e12 AS heat,
           coalesce(greatest(power_brake, 0), 0) / 3.6e12 AS brake,
           1 - sm_clock_megahertz / CAST(clock_max AS DOUBLE) AS lost
    FROM counters
    LEFT JOIN clocks ON clocks.device_id = counters.device_id
)
SELECT site, node, device_id, CAST(week_begin AS DATE) AS week_begin,
       round(sum(heat), 3) AS heat_hours,
       round(sum(brake), 3) AS power_brake_hours,
       round(100 * sum(heat * lost) / nullif(sum(heat) FILTER (WHERE lost IS NOT NULL), 0), 1)
           AS clock_lost_to_heat_percent,
       round(100 * sum(brake * lost) / nullif(sum(brake) FILTER (WHERE lost IS NOT NULL), 0), 1)
           AS clock_lost_to_power_brake_percent
FROM steps
GROUP BY 1, 2, 3, 4
HAVING sum(heat) >= 0.01 OR sum(brake) >= 0.01
ORDER BY week_begin, sum(heat) + sum(brake) DESC, device_id;
