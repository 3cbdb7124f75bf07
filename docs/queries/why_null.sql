-- Why values of gpu_sample are null (DuckDB): per device and column, how many are null because the GPU does not have them
-- ('unsupported'), because reading them failed (with the return code of the row's first failure), or because they were not
-- read at all. A column's bit in the masks is in field_dictionary. Other tables likewise; bits from 63 on are bits from 0 on of
-- unsupported_mask_2 and failed_mask_2, where a table has these.
--
-- Put the place of the lake for LAKE.
WITH readings AS (
    SELECT device_id, fail_code, unsupported_mask, failed_mask,
           CAST(COLUMNS(* EXCLUDE (device_id, fail_code, unsupported_mask, failed_mask)) AS VARCHAR)
    FROM delta_scan('LAKE/gpu_sample')
),
cells AS (
    SELECT * FROM readings
    UNPIVOT INCLUDE NULLS (
        content FOR column_name IN (COLUMNS(* EXCLUDE (device_id, fail_code, unsupported_mask, failed_mask)))
    )
)
SELECT cells.device_id,
       cells.column_name,
       CASE
           WHEN (unsupported_mask >> dictionary.bit) & 1 = 1 THEN 'unsupported'
           WHEN (failed_mask >> dictionary.bit) & 1 = 1 THEN 'failed with ' || fail_code
           ELSE 'not read'
       END AS why,
       count(*) AS nulls
FROM cells
JOIN delta_scan('LAKE/field_dictionary') AS dictionary
  ON dictionary."table" = 'gpu_sample' AND dictionary."column" = cells.column_name
WHERE content IS NULL AND dictionary.bit IS NOT NULL
GROUP BY ALL
ORDER BY ALL;
