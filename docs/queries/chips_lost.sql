-- Boards that lose chips (DuckDB): which boards answered with fewer chips at the end of the lake's last hour than at its
-- beginning, the worst first, and what else grew or fell with them: a board that loses chips one by one is dying. A board
-- that was taken out and replaced counts as two, by its serial number where the firmware tells it.
--
-- Put the place of the lake for LAKE.
WITH samples AS (
    SELECT *, coalesce(hashrate_hashes_per_second, hashrate_average_hashes_per_second) AS hashrate
    FROM delta_scan('LAKE/hashboard_sample')
    WHERE chips_found IS NOT NULL
      AND ts > (SELECT max(ts) FROM delta_scan('LAKE/hashboard_sample')) - INTERVAL 1 HOUR
)
SELECT device_id,
       board_index,
       any_value(rack) AS rack,
       min(ts) AS since,
       max(chips_expected) AS chips_expected,
       arg_min(chips_found, ts) AS chips_before,
       arg_max(chips_found, ts) AS chips_now,
       chips_before - chips_now AS chips_lost,
       round(100.0 * arg_max(hashrate, ts) / nullif(arg_min(hashrate, ts), 0), 1) AS hashrate_percent_left,
       arg_max(hardware_errors, ts) - arg_min(hardware_errors, ts) AS hardware_errors_more,
       arg_max(crc_errors, ts) - arg_min(crc_errors, ts) AS crc_errors_more
FROM samples
GROUP BY device_id, board_index, coalesce(board_serial, '')
HAVING chips_lost > 0
ORDER BY chips_lost DESC, device_id, board_index;
