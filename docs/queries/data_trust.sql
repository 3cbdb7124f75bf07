-- How much of what was due is there (DuckDB): per version of the collector and column of gpu_sample, which part of the
-- expected values was received, failed, is not supported by the device, or is missing; worst first.
--
-- From coverage: expected, the rows that were due. From gpu_sample: values that are not null, and the bits of failed_mask and
-- unsupported_mask, which field_dictionary gives a column. From event: collector_start, whose details_json has the version.
-- Limits: missing is a row that never came (dropped, lost in flight, not in the lake yet) or a value that was not read that
-- time. Where a host restarts with another version, its last rows may count for the new one. What was collected before a
-- node's first collector_start in the lake is left out. Other tables likewise; bits from 63 on are in the second masks.
--
-- Put the place of the lake for LAKE; for a large one narrow coverage and gpu_sample by dt.
WITH starts AS (
    SELECT site, node, json_extract_string(details_json, '$.version') AS version, ts AS began,
           lead(ts) OVER (PARTITION BY site, node ORDER BY ts) AS ended
    FROM delta_scan('LAKE/event')
    WHERE event = 'collector_start'
),
due AS (
    SELECT version, sum(expected) AS expected
    FROM delta_scan('LAKE/coverage') AS coverage
    JOIN starts ON starts.site = coverage.site AND starts.node = coverage.node
               AND coverage.ts >= began AND (coverage.ts < ended OR ended IS NULL)
    WHERE coverage."table" = 'gpu_sample'
    GROUP BY version
),
samples AS (
    SELECT version, sample.*
    FROM delta_scan('LAKE/gpu_sample') AS sample
    JOIN starts ON starts.site = sample.site AND starts.node = sample.node
               AND sample.ts >= began AND (sample.ts < ended OR ended IS NULL)
),
received AS (
    SELECT version, column_name, received
    FROM (SELECT version, count(COLUMNS(* EXCLUDE (version))) FROM samples GROUP BY version)
    UNPIVOT (received FOR column_name IN (COLUMNS(* EXCLUDE (version))))
),
masks AS (
    SELECT version, unsupported_mask, failed_mask, count(*) AS samples FROM samples GROUP BY 1, 2, 3
),
reasons AS (
    SELECT version, dictionary."column" AS column_name,
           sum(samples * ((failed_mask >> bit) & 1)) AS failed,
           sum(samples * ((unsupported_mask >> bit) & 1)) AS unsupported
    FROM masks
    CROSS JOIN delta_scan('LAKE/field_dictionary') AS dictionary
    WHERE dictionary."table" = 'gpu_sample' AND bit IS NOT NULL
    GROUP BY 1, 2
)
SELECT due.version, reasons.column_name, expected,
       round(received / expected, 4) AS received,
       round(failed / expected, 4) AS failed,
       round(unsupported / expected, 4) AS unsupported,
       round((expected - received - failed - unsupported) / expected, 4) AS missing
FROM due
JOIN reasons ON reasons.version = due.version
JOIN received ON received.version = due.version AND received.column_name = reasons.column_name
WHERE expected > 0
ORDER BY failed DESC, missing DESC, 1, 2;
