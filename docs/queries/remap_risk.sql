-- GPUs whose memory runs out of repairs (DuckDB): a remapping has failed, or waits for a reset, or a bank of the memory has no
-- spare row left; as last read, with the serial and the slot that the GPU was last seen in.
--
-- From gpu_health: row_remap_failed, row_remap_pending, bank_remap_pending, remap_banks_none, memory_unrepairable, each as
-- it was last read, since rows of a stalled or lost GPU have no values; from device: what the GPU says of itself.
-- Limits: a GPU that was taken out stays in the list as it was, last_read says since when; GPUs before Ampere retire pages
-- instead (pages_retired_uncorrected, page_retirement_pending).
--
-- Put the place of the lake for LAKE.
WITH health AS (
    SELECT device_id,
           max(ts) AS last_read,
           max_by(row_remap_failed, ts) FILTER (WHERE row_remap_failed IS NOT NULL) AS failed,
           max_by(row_remap_pending, ts) FILTER (WHERE row_remap_pending IS NOT NULL) AS pending,
           max_by(bank_remap_pending, ts) FILTER (WHERE bank_remap_pending IS NOT NULL) AS bank_pending,
           max_by(remap_banks_none, ts) FILTER (WHERE remap_banks_none IS NOT NULL) AS banks_used_up,
           max_by(memory_unrepairable, ts) FILTER (WHERE memory_unrepairable IS NOT NULL) AS unrepairable
    FROM delta_scan('LAKE/gpu_health')
    WHERE row_status IN (0, 1, 3)
    GROUP BY device_id
),
seen AS (
    SELECT *, row_number() OVER (PARTITION BY device_id ORDER BY ts DESC) AS newest_first
    FROM delta_scan('LAKE/device')
)
SELECT health.device_id, seen.model, seen.serial, seen.site, seen.rack, seen.node, seen.pci_bus_id,
       seen.chassis_serial, seen.slot_number, seen.tray_index,
       failed, pending, bank_pending, banks_used_up, unrepairable, last_read
FROM health
LEFT JOIN seen ON seen.device_id = health.device_id AND seen.newest_first = 1
WHERE failed = 1 OR pending = 1 OR bank_pending = 1 OR banks_used_up > 0 OR unrepairable = 1
ORDER BY coalesce(unrepairable, 0) DESC, coalesce(failed, 0) DESC, coalesce(banks_used_up, 0) DESC, health.device_id;
