-- Joules per terahash (DuckDB): what each miner that mined used for its hashes, per hour, the best first. The mean power is
-- divided by the mean hashrate of the same samples. Where `is_estimated` is true, the firmware reckons its power or does not
-- say where it is measured; such numbers compare a miner with itself, not with another make. Hashes of other algorithms
-- than that of the neighbours are not comparable either, hence `algorithm`.
--
-- Put the place of the lake for LAKE.
WITH samples AS (
    SELECT device_id,
           date_trunc('hour', ts) AS hour,
           coalesce(power_milliwatts, power_estimated_milliwatts) / 1e3 AS watts,
           power_milliwatts IS NULL AS is_estimated,
           coalesce(
               hashrate_1m_hashes_per_second, hashrate_5m_hashes_per_second, hashrate_5s_hashes_per_second,
               hashrate_hashes_per_second, hashrate_average_hashes_per_second
           ) / 1e12 AS terahashes_per_second
    FROM delta_scan('LAKE/miner_sample')
    WHERE state = 'mining' AND row_status IN (0, 1)
),
kinds AS (
    SELECT device_id, arg_max(model, observed_at) AS model, arg_max(algorithm, observed_at) AS algorithm
    FROM delta_scan('LAKE/device')
    GROUP BY device_id
)
SELECT device_id,
       hour,
       any_value(model) AS model,
       any_value(algorithm) AS algorithm,
       count(*) AS samples,
       round(avg(watts), 1) AS watts,
       round(avg(terahashes_per_second), 3) AS terahashes_per_second,
       round(avg(watts) / avg(terahashes_per_second), 2) AS joules_per_terahash,
       bool_or(is_estimated) AS is_estimated
FROM samples
LEFT JOIN kinds USING (device_id)
WHERE watts > 0 AND terahashes_per_second > 0
GROUP BY device_id, hour
ORDER BY joules_per_terahash, device_id, hour;
