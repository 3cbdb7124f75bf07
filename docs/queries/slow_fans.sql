-- Fans of miners that turn too slowly (DuckDB): per miner, fan and day, where in every hour of the day the fan had less than
-- 0.9 of the speed that fans in the same place of the same model have at the same duty and inlet temperature.
--
-- From miner_sample: fan_1_rpm to fan_6_rpm, fan_duty_percent and inlet_temp_celsius (both in steps of 5), of miners that
-- mine; from device: the model. What is compared is the speed per percent of duty, as the mean of an hour; peers are all of
-- one day in the same steps, the miner among them, and their median counts.
-- Limits: a fan is judged where at least 5 miners are in the same steps that day, and a day where at least 20 of its hours
-- are judged. A whole fleet that ages alike is not seen. A firmware that turns weak fans up shows them at a higher duty, with
-- peers only among such. GPUs with fans have fans_rpm and fan_speed_percent, and no inlet temperature.
--
-- Put the place of the lake for LAKE; for a large one narrow miner_sample by dt.
WITH models AS (
    SELECT device_id, max_by(model, ts) AS model FROM delta_scan('LAKE/device') GROUP BY device_id
),
fans AS (
    SELECT *
    FROM (
        SELECT site, node, device_id, ts, fan_duty_percent, inlet_temp_celsius,
               fan_1_rpm, fan_2_rpm, fan_3_rpm, fan_4_rpm, fan_5_rpm, fan_6_rpm
        FROM delta_scan('LAKE/miner_sample')
        WHERE state = 'mining' AND fan_duty_percent > 0 AND inlet_temp_celsius IS NOT NULL
    )
    UNPIVOT (rpm FOR fan IN (fan_1_rpm, fan_2_rpm, fan_3_rpm, fan_4_rpm, fan_5_rpm, fan_6_rpm))
),
hours AS (
    SELECT site, node, fans.device_id, model, fan, CAST(ts AS DATE) AS day, date_trunc('hour', ts) AS hour,
           floor(fan_duty_percent / 5) AS duty_step, floor(inlet_temp_celsius / 5) AS inlet_step,
           avg(rpm) AS rpm, avg(rpm / CAST(fan_duty_percent AS DOUBLE)) AS per_duty
    FROM fans
    JOIN models ON models.device_id = fans.device_id
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
),
peers AS (
    SELECT model, fan, day, duty_step, inlet_step, median(per_duty) AS per_duty
    FROM hours
    GROUP BY 1, 2, 3, 4, 5
    HAVING count(DISTINCT device_id) >= 5 AND median(per_duty) > 0
)
SELECT hours.site, hours.node, hours.device_id, hours.model, hours.fan, hours.day,
       count(DISTINCT hours.hour) AS hours_judged,
       round(avg(hours.rpm)) AS rpm,
       round(avg(hours.per_duty / peers.per_duty), 3) AS of_peers
FROM hours
JOIN peers ON peers.model = hours.model AND peers.fan = hours.fan AND peers.day = hours.day
          AND peers.duty_step = hours.duty_step AND peers.inlet_step = hours.inlet_step
GROUP BY 1, 2, 3, 4, 5, 6
HAVING count(DISTINCT hours.hour) >= 20 AND max(hours.per_duty / peers.per_duty) < 0.9
ORDER BY of_peers, hours.device_id, hours.fan, hours.day;
