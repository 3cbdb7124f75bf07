-- GPUs that went silent while their node went on (DuckDB): three minutes or more without a value of one GPU, in which the
-- node still read others; and what was told of the GPU meanwhile. Where told is null, nothing but the silence shows it.
--
-- From gpu_sample: rows that have values (row_status 0, 1, 3), by minute; rows that say stale, unreachable or lost have none.
-- From event: device_lost, gpu_stalled, gpu_fell_off_the_bus and xid of the GPU, from ten minutes before the silence on.
-- Limits: a node whose GPUs are all silent is not seen here (its coverage is); nor is a GPU that never had a value. One
-- that was moved to another node is silent only until it is read there. A GPU that was taken out stays in the list
-- (back is null). Where period is longer than a minute, three minutes are too few. For miners put miner_sample for
-- gpu_sample: their node is the host that reads them.
--
-- Put the place of the lake for LAKE; for a large one narrow gpu_sample by dt.
WITH minutes AS (
    SELECT DISTINCT site, node, device_id, date_trunc('minute', ts) AS minute
    FROM delta_scan('LAKE/gpu_sample')
    WHERE row_status IN (0, 1, 3)
),
spans AS (
    SELECT *, lead(minute) OVER (PARTITION BY device_id ORDER BY minute) AS back FROM minutes
),
silences AS (
    SELECT spans.site, spans.node, spans.device_id, spans.minute AS last_minute, spans.back,
           count(DISTINCT others.minute) AS silent_minutes
    FROM spans
    JOIN minutes AS others
      ON others.site = spans.site AND others.node = spans.node
     AND others.minute > spans.minute AND (others.minute < spans.back OR spans.back IS NULL)
    WHERE spans.back IS NULL OR spans.back > spans.minute + INTERVAL '3' MINUTE
    GROUP BY 1, 2, 3, 4, 5
    HAVING count(DISTINCT others.minute) >= 3
)
SELECT silences.site, silences.node, silences.device_id, last_minute, back, silent_minutes,
       string_agg(DISTINCT events.event, ', ') AS told
FROM silences
LEFT JOIN delta_scan('LAKE/event') AS events
  ON events.device_id = silences.device_id
 AND events.event IN ('device_lost', 'gpu_stalled', 'gpu_fell_off_the_bus', 'xid')
 AND events.ts >= last_minute - INTERVAL '10' MINUTE
 AND (events.ts < back OR back IS NULL)
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY told NULLS FIRST, silent_minutes DESC, silences.device_id;
